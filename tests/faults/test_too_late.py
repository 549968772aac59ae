"""A DELETE of a transfer or of its token arrives while the last bytes are on their way to the downloader.

Either both sides are told that the transfer was ended, or it is too late and the transfer succeeds for both.
"""

import contextlib
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.faults.conftest import LIMITS, Faulty, LinkedNode
from tests.support.cluster import Curl
from tests.support.crowd import read_until, request
from tests.support.wait import wait_until

KIB = 1024


@pytest.fixture
def download(cluster: Faulty, token: str) -> Iterator[socket.socket]:
    """Connect a downloader with a small receive buffer, from which the test reads by hand."""
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * KIB)
        client.settimeout(20)
        client.connect(("127.0.0.1", cluster[1].port))
        client.sendall(request("GET", f"/{token}/x?wait=60"))
        yield client


@pytest.fixture(params=["the name", "the token"])
def url(request: pytest.FixtureRequest, cluster: Faulty, token: str) -> str:
    """Return the URL to delete: that of the transfer or that of its token."""
    return cluster.url(0, token, "x" if request.param == "the name" else "")


@pytest.mark.parametrize("is_chunked", [False, True])
def test_everything_has_arrived(
    cluster: Faulty, token: str, download: socket.socket, url: str, is_chunked: bool
) -> None:
    """The client has received everything but has not closed yet. Its node waits for that, but not long."""
    with Curl("-T", "-" if is_chunked else __file__, cluster.url(0, token, "x"), pipe=is_chunked) as upload:
        if is_chunked:
            upload.write_all(b"end")
        read_until(download, b"0\r\n\r\n" if is_chunked else Path(__file__).read_bytes()[-20:])
        assert httpx.delete(url).status_code == (409 if url.endswith("/x") else 204)
        assert upload.process.poll() is None
        download.close()
        assert upload.finish()[0:2] == (
            0,
            f"delivered {3 if is_chunked else Path(__file__).stat().st_size} bytes\n".encode(),
        )


def test_a_client_that_is_behind_can_be_cancelled(
    cluster: Faulty, token: str, download: socket.socket, url: str, tmp_path: Path
) -> None:
    """The node has read everything from Redis. The client has stopped reading."""
    source = tmp_path / "source"
    source.write_bytes(bytes(200 * KIB))
    with Curl("-T", source, "-w", "%{http_code}", cluster.url(0, token, "x")) as upload:
        read_until(download, b"\r\n\r\n")
        wait_until(lambda: cluster.redis.xinfo_stream(next(cluster.keys("chunks")))["length"], "the chunk")  # type: ignore[union-attr]
        assert httpx.delete(url).status_code == 204
        assert upload.finish()[1].endswith(b"410" if url.endswith("/x") else b"401")
    got = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := download.recv(64 * KIB):
            got += piece
    assert len(got) < source.stat().st_size


def test_the_uploaders_node_is_frozen_while_the_transfer_ends(
    cluster: Faulty, victim: LinkedNode, token: str, download: socket.socket
) -> None:
    """The node is frozen for longer than its death timeout and its patience with Redis. When it wakes, it learns how
    the transfer ended."""
    with Curl("-T", "-", f"{victim.url}/{token}/x", pipe=True) as upload:
        upload.write_all(b"end")
        read_until(download, b"0\r\n\r\n")
        victim.signal(signal.SIGSTOP)
        stopped = time.monotonic()
        download.close()
        wait_until(lambda: not cluster.keys_of_test("transfer"), "the end of the transfer")
        while time.monotonic() < stopped + LIMITS["transfer_patience"] + 3:
            time.sleep(0.1)
        victim.signal(signal.SIGCONT)
        assert upload.finish() == (0, b"delivered 3 bytes\n")
