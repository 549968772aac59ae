"""Redis loses the last second of writes in the middle of a transfer, as by a failover to a replica that was cut off.

The transfer goes on from what the downloader has, or both sides are told that it is lost. Never is a byte wrong.
"""

import os
import threading
import time
from pathlib import Path

import pytest

from tests.faults.conftest import Faulty, Start
from tests.resume.pairs import Cuttable, Pair, Plan
from tests.support.cluster import curl
from tests.support.http1 import Answer
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
    cluster.may_linger = True


class PlainPair(Pair):
    """Its uploader is curl, which sends the whole file again until it is told 200."""

    def upload(self) -> None:
        while self.told is None and time.monotonic() < self.deadline:
            put = curl(
                "--limit-rate",
                "3M",
                "-w",
                "\n%{http_code}",
                "-T",
                "-",
                self.nodes[0] + self.path,
                stdin=self.plan.content,
            )
            if put.stdout.endswith(b"\n200"):
                self.told = Answer(200, {})
            else:
                self.did[f"uploads told {put.stdout[-3:].decode()}"] += 1


def lose_a_second(cluster: Faulty, pair: Pair) -> None:
    """Run a pair, and let Redis forget what happened since the first bytes arrived."""
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


def plan(piece: int | None) -> Plan:
    return Plan(os.urandom(8192 * KIB), 3.0, is_careful=True, piece=piece, knows_length=True, forgets_after=0)


@pytest.mark.parametrize("down", [0, 1], ids=["same node", "cross node"])
def test_a_plain_upload_whose_clients_try_again(cluster: Faulty, token: str, down: int) -> None:
    lose_a_second(
        cluster,
        PlainPair([cluster[0].url], f"/{token}/x", plan(None), Cuttable(), down=[cluster[down].url]),
    )


@pytest.mark.parametrize("piece", [None, 2048 * KIB], ids=["one part", "parts"])
@pytest.mark.parametrize("down", [0, 1], ids=["same node", "cross node"])
def test_a_resumable_upload(cluster: Faulty, token: str, down: int, piece: int | None) -> None:
    lose_a_second(
        cluster,
        Pair([cluster[0].url], f"/{token}/x", plan(piece), Cuttable(), down=[cluster[down].url]),
    )
