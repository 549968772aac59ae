"""What a node with many streams does for each of them, and for those that come next."""

import contextlib
import selectors
import threading
from collections.abc import Iterator, Sequence

import pytest

from relay.buffers import BATCH, CHUNK
from tests.support.cluster import Cluster, over_redis
from tests.support.crowd import Selection, crowd, read_until, request
from tests.support.redis import RedisServer
from tests.support.wait import wait_until

STREAMS, NEWCOMERS = 32, 96
#: More than a stream moves while the test runs, in bytes.
ENDLESS = 1 << 40
PIECE = bytes(CHUNK)


@pytest.fixture(scope="module")
def node(redis_server: RedisServer) -> Iterator[Cluster]:
    with over_redis(redis_server, "a") as cluster:
        yield cluster


class Pump:
    """The clients of `STREAMS` transfers through one node: they send and receive as fast as it goes."""

    def __init__(self, port: int, token: str) -> None:
        #: Bytes that each downloader has received.
        self.received = [0] * STREAMS
        self._puts = [request("PUT", f"/{token}/{number}", Content_Length=ENDLESS) for number in range(STREAMS)]
        self._gets = [request("GET", f"/{token}/{number}?wait=60") for number in range(STREAMS)]
        self._port = port
        self._over = threading.Event()

    def moved_since(self, before: Sequence[int]) -> list[int]:
        """Return how many bytes each downloader has received since `received` was as it was `before`."""
        return [after - at for after, at in zip(self.received, before, strict=True)]

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        with crowd(self._port, self._puts) as uploads, crowd(self._port, self._gets) as downloads:
            for download in downloads:
                read_until(download, b"\r\n\r\n")
            writable = Selection(uploads, selectors.EVENT_WRITE)
            readable = Selection(downloads, selectors.EVENT_READ)
            thread = threading.Thread(target=self._run, args=(writable, readable))
            thread.start()
            try:
                yield
            finally:
                self._over.set()
                thread.join()
                writable.close()
                readable.close()

    def _run(self, writable: Selection, readable: Selection) -> None:
        while not self._over.is_set():
            for _, upload in writable.ready(0):
                upload.send(PIECE)
            for number, download in readable.ready(0.01):
                self.received[number] += len(download.recv(CHUNK))


def test_streams_share_a_node_evenly_and_newcomers_do_not_wait_for_them(node: Cluster) -> None:
    """In each round of the node's event loop, a stream moves at most one batch, and several clients are let in.

    If it were one client, each stream would move a batch for each newcomer. So this counts bytes, not seconds.
    """
    pump = Pump(node[0].port, node.token())
    with pump.running():
        before = list(pump.received)
        with crowd(node[0].port, [request("GET", "/healthz")] * NEWCOMERS) as newcomers:
            for newcomer in newcomers:
                assert read_until(newcomer, b"\r\n\r\n").startswith(b"HTTP/1.1 200 ")
        most = max(pump.moved_since(before))
        # Longer, because megabytes of each stream may lie in the kernels.
        wait_until(lambda: max(pump.moved_since(before)) > 100 * CHUNK, "the streams to move on")
        moved = pump.moved_since(before)
    print(f"until the last of {NEWCOMERS} newcomers was served, a stream moved {most / CHUNK:.0f} chunks at most")
    assert most < NEWCOMERS / 4 * BATCH * CHUNK
    assert min(moved) > max(moved) / 2
