"""Redis goes back to an earlier state, as after a failover to a lagging replica. No client waits for ever.

The lost data cannot be recovered, so most of these transfers end as `store_lost` on both sides.
"""

import time
from pathlib import Path

import httpx
import pytest

from relay.settings import Settings
from relay.store.offsets import offset_of
from tests.faults.conftest import Faulty, Start
from tests.faults.transfers import Watched
from tests.support.cluster import Curl, curl
from tests.support.wait import wait_until

WINDOW: int = Settings.model_fields["window"].default


def last_id(cluster: Faulty, kind: str) -> bytes:
    """Return the last ID of the test's only stream of this kind."""
    assert cluster.redis is not None
    (key,) = cluster.keys_of_test(kind)
    return bytes(cluster.redis.xinfo_stream(key)["last-generated-id"])


def last_offset(cluster: Faulty, kind: str) -> int:
    return offset_of(last_id(cluster, kind))


def assert_lost(transfer: Watched) -> None:
    """Check that both sides are told, although neither client does anything more."""
    wait_until(lambda: transfer.download.process.poll() is not None, "the downloader to be told", timeout=15)
    transfer.assert_broken(503)
    assert b"lost this transfer" in transfer.answered


def test_rollback_to_before_the_upload(cluster: Faulty, start: Start) -> None:
    snapshot = cluster.server.snapshot()
    transfer = start()
    transfer.feed(b"one ")
    cluster.server.roll_back(snapshot)
    assert_lost(transfer)


@pytest.fixture
def resurrected(cluster: Faulty, token: str) -> str:
    """Return the URL of an upload that left while it waited, and whose claim the rollback has restored."""
    url = cluster.url(0, token, "x")
    with Curl("-T", "-", url, pipe=True):
        cluster.wait_state(token, "waiting")
        snapshot = cluster.server.snapshot()
    wait_until(lambda: httpx.head(url).status_code == 404, "the name to be free")
    cluster.server.roll_back(snapshot)
    wait_until(lambda: httpx.head(url).status_code == 200, "the name to be taken again")
    return url


@pytest.mark.parametrize("node", [0, 1])
def test_an_upload_may_take_the_name_of_a_resurrected_one(
    cluster: Faulty, token: str, resurrected: str, node: int
) -> None:
    """The node of the resurrected upload lives and says that it has no such upload, so the name is free."""
    with Curl("-T", "-", "-H", "Content-Type: text/plain", cluster.url(node, token, "x"), pipe=True) as upload:
        upload.write_all(b"next")
        wait_until(lambda: httpx.head(resurrected).headers["content-type"] == "text/plain", "the next to have the name")
        assert curl(resurrected + "?wait=10").stdout == b"next"
        assert upload.finish() == (0, b"delivered 4 bytes\n")


@pytest.mark.parametrize("node", [0, 1])
def test_a_download_of_a_resurrected_upload_is_503(cluster: Faulty, token: str, resurrected: str, node: int) -> None:
    answer = httpx.get(cluster.url(node, token, "x"), timeout=10)
    assert (answer.status_code, "lost this transfer" in answer.text) == (503, True)
    assert httpx.head(resurrected).status_code == 404
    cluster.may_linger = True


def test_rollback_to_before_the_download(cluster: Faulty, token: str, start: Start) -> None:
    """The upload is waiting again in Redis. Another downloader must not join and get only its later bytes."""
    with cluster[1].link.silent():
        transfer = start()
        cluster.wait_state(token, "waiting")
        snapshot = cluster.server.snapshot()
    transfer.feed(b"one ")
    cluster.server.roll_back(snapshot)
    assert_lost(transfer)


@pytest.mark.parametrize("is_whole", [False, True], ids=["more is to come", "the upload is whole"])
def test_bytes_that_have_not_arrived_are_lost(cluster: Faulty, start: Start, is_whole: bool) -> None:
    transfer = start()
    transfer.feed(b"one ")
    snapshot = cluster.server.snapshot()
    with cluster[1].link.silent():
        transfer.upload.write(b"two ")
        transfer.fed += b"two "
        if is_whole:
            transfer.upload.close()
        written = b"8-1" if is_whole else b"8-0"
        wait_until(lambda: last_id(cluster, "chunks") == written, "the upload to have written it")
        cluster.server.roll_back(snapshot)
        cluster[1].link.cut()
    assert_lost(transfer)


def test_bytes_that_have_arrived_are_lost(cluster: Faulty, start: Start) -> None:
    """The loss does no harm if the upload continues before a node notices it."""
    transfer = start()
    transfer.feed(b"one ")
    snapshot = cluster.server.snapshot()
    transfer.feed(b"two ")
    with cluster[0].link.silent():
        cluster.server.roll_back(snapshot)
        transfer.upload.write(b"three")
        transfer.fed += b"three"
        cluster[0].link.cut()
    transfer.finish()
    assert (transfer.status, transfer.is_complete) in ((200, True), (424, False))


def is_full(cluster: Faulty) -> bool:
    """Return whether the upload's window is full. Chunks of odd sizes count for more than their bytes."""
    written = last_offset(cluster, "chunks")
    time.sleep(0.2)
    return written - last_offset(cluster, "acks") > WINDOW / 2 and last_offset(cluster, "chunks") == written


def test_acknowledgements_are_lost(cluster: Faulty, start: Start, source: Path) -> None:
    """The upload waits for acknowledgements because its window is full, and the download waits for more bytes. The
    download repeats its acknowledgement."""
    transfer = start(source=source, rate="4M")
    transfer.wait_arrived(1)
    with cluster[1].link.silent():
        wait_until(lambda: is_full(cluster), "a full window")
        snapshot = cluster.server.snapshot()
        written = last_offset(cluster, "chunks")
        cluster[0].link.is_silent = True
    transfer.wait_arrived(written)
    time.sleep(2.5)  # wait until the reader has read again and found nothing new
    cluster.server.roll_back(snapshot)
    cluster[0].link.cut()
    cluster.heal()
    transfer.assert_complete()


def test_the_final_acknowledgement_is_lost(cluster: Faulty, start: Start) -> None:
    """The download is complete, but after the rollback no node knows it. The uploader is told 503 in the end."""
    transfer = start()
    transfer.feed(b"one ")
    with cluster[1].link.silent():
        transfer.upload.close()
        wait_until(lambda: last_id(cluster, "chunks") == b"4-1", "the upload to be whole")
        snapshot = cluster.server.snapshot()
        cluster[0].link.is_silent = True
    assert transfer.download.process.wait(10) == 0
    wait_until(lambda: not cluster.keys_of_test("transfer"), "the end of the transfer")
    cluster.server.roll_back(snapshot)
    cluster[0].link.cut()
    cluster.heal()
    cluster.may_linger = True
    transfer.finish()
    assert (transfer.status, transfer.is_complete) == (424, True)
