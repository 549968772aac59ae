"""Redis loses the last second of writes in the middle of a transfer, as by a failover to a replica that was cut off.

The transfer goes on from what the downloader has, or both sides are told that it is lost. Never is a byte wrong.
"""

import os
import threading
from pathlib import Path

import pytest

from tests.faults.conftest import Faulty, Start
from tests.resume.pairs import Cuttable, Pair, Plan
from tests.support.wait import wait_until

KIB = 1024
#: Bytes that arrive after the snapshot to which Redis goes back: more than a window.
LOST = 3072 * KIB


@pytest.mark.parametrize("down", [0, 1], ids=["same node", "cross node"])
def test_a_plain_upload(cluster: Faulty, start: Start, source: Path, down: int) -> None:
    transfer = start(down=cluster[down], source=source, rate="3M")
    transfer.wait_arrived(256 * KIB)
    snapshot = cluster.server.snapshot()
    transfer.wait_arrived(transfer.arrived() + LOST)
    cluster.server.roll_back(snapshot)
    transfer.finish()
    assert (transfer.status, transfer.is_complete) in ((200, True), (503, False))
    print(transfer.status)
    cluster.may_linger = True


@pytest.mark.parametrize("piece", [None, 2048 * KIB], ids=["one part", "parts"])
@pytest.mark.parametrize("down", [0, 1], ids=["same node", "cross node"])
def test_a_resumable_upload(cluster: Faulty, token: str, down: int, piece: int | None) -> None:
    plan = Plan(os.urandom(8192 * KIB), 3.0, is_careful=True, piece=piece, knows_length=True, forgets_after=0)
    pair = Pair([cluster[0].url], f"/{token}/x", plan, Cuttable(), down=[cluster[down].url])
    running = threading.Thread(target=pair.run)
    running.start()
    wait_until(lambda: pair.arrived() > 256 * KIB, "some bytes")
    snapshot, had = cluster.server.snapshot(), pair.arrived()
    wait_until(lambda: pair.arrived() > had + LOST, "more bytes")
    cluster.server.roll_back(snapshot)
    running.join()
    assert not pair.found
    print(pair.did)
    cluster.may_linger = True
