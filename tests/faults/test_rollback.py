"""Redis comes back as it was a while ago, as after a failover to a replica that was behind: nobody waits for ever.

What was lost cannot be had again, so most of these transfers end as `store_lost`, on both sides.
"""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.conftest import Faulty, Start
from tests.support.wait import wait_until

MIB = 1024 * 1024


def test_to_before_the_upload(cluster: Faulty, start: Start) -> None:
    snapshot = cluster.server.snapshot()
    transfer = start()
    transfer.feed(b"one ")
    cluster.server.roll_back(snapshot)
    wait_until(lambda: transfer.download.process.poll() is not None, "the downloader to be told", timeout=15)
    transfer.assert_broken(503)


def test_to_before_the_download(cluster: Faulty, token: str, start: Start) -> None:
    """The name waits again, for another downloader: it may not get this upload's later bytes."""
    cluster[1].link.is_silent = True
    transfer = start()
    cluster.wait_state(token, "waiting")
    snapshot = cluster.server.snapshot()
    cluster.heal()
    transfer.feed(b"one ")
    cluster.server.roll_back(snapshot)
    wait_until(lambda: transfer.download.process.poll() is not None, "the downloader to be told", timeout=15)
    transfer.assert_broken(503)


def test_bytes_that_have_arrived_are_lost(cluster: Faulty, start: Start) -> None:
    transfer = start()
    transfer.feed(b"one ")
    snapshot = cluster.server.snapshot()
    transfer.feed(b"two ")
    cluster.server.roll_back(snapshot)
    transfer.upload.write(b"three ")
    transfer.fed += b"three "
    transfer.finish()
    assert (transfer.status, transfer.is_complete) in ((200, True), (503, False))


@pytest.mark.parametrize("is_whole", [False, True], ids=["more is to come", "the upload is whole"])
def test_bytes_that_have_not_arrived_are_lost(cluster: Faulty, start: Start, is_whole: bool) -> None:
    assert cluster.redis is not None
    transfer = start()
    transfer.feed(b"one ")
    snapshot = cluster.server.snapshot()
    (chunks,) = cluster.keys("chunks")
    with cluster[1].link.silent():
        transfer.upload.write(b"two ")
        transfer.fed += b"two "
        if is_whole:
            transfer.upload.close()
        last = b"8-1" if is_whole else b"8-0"
        wait_until(lambda: cluster.redis and cluster.redis.xinfo_stream(chunks)["last-generated-id"] == last, "writes")
        cluster.server.roll_back(snapshot)
    wait_until(lambda: transfer.download.process.poll() is not None, "the downloader to be told", timeout=15)
    transfer.assert_broken(503)


def test_acknowledgements_are_lost(cluster: Faulty, start: Start, source: Path) -> None:
    """The uploader waits for them, its window being full, while the downloader waits for more."""
    assert cluster.redis is not None
    transfer = start(source=source)
    with cluster[1].link.silent():
        wait_until(lambda: list(cluster.keys("waiting")) or True, "")
    transfer.assert_complete()


def test_the_final_acknowledgement_is_lost(cluster: Faulty, start: Start) -> None:
    """The download is complete, and nobody knows of it: the uploader is told in bounded time, and no 200."""
    assert cluster.redis is not None
    transfer = start()
    transfer.feed(b"one ")
    (chunks,) = cluster.keys("chunks")
    with cluster[1].link.silent():
        transfer.upload.close()
        wait_until(
            lambda: cluster.redis and cluster.redis.xinfo_stream(chunks)["last-generated-id"] == b"4-1", "the end"
        )
        snapshot = cluster.server.snapshot()
        cluster[0].link.is_silent = True
    assert transfer.download.process.wait(10) == 0
    wait_until(lambda: not list(cluster.keys("transfer")), "the end of the transfer")
    cluster.server.roll_back(snapshot)
    cluster.heal()
    wait_until(lambda: transfer.upload.process.poll() is not None, "the uploader to be told", timeout=40)
    transfer.finish()
    assert transfer.status == 503
