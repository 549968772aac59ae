"""Clients that stall, half-close their connection, or disconnect in ways that are hard to notice."""

import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.faults.conftest import Faulty, LinkedNode, Start, connect, fill, joined
from tests.support.cluster import CUT_OFF, Curl, curl, id_of
from tests.support.wait import wait_until

MIB = 1024 * 1024
#: Time after which the node `impatient` ends a stalled transfer, in seconds.
STALL = 2


@pytest.fixture
def impatient(cluster: Faulty) -> Iterator[LinkedNode]:
    yield from joined(cluster, "impatient", stall=STALL)


@pytest.mark.parametrize("side", ["uploader", "downloader"])
def test_a_stall_ends_the_transfer(impatient: LinkedNode, start: Start, tmp_path: Path, side: str) -> None:
    big = tmp_path / "big"
    with big.open("wb") as file:
        file.truncate(200 * MIB)  # larger than the socket buffers
    transfer = start(impatient, impatient, source=big)
    transfer.wait_arrived(1)
    stopped, other = transfer.upload.process, transfer.download.process
    if side == "downloader":
        stopped, other = other, stopped
    stopped.send_signal(signal.SIGSTOP)
    wait_until(lambda: other.poll() is not None, "the other side to be told")
    stopped.send_signal(signal.SIGCONT)
    transfer.assert_broken(408)
    assert "outcome=stalled" in impatient.log()


def test_a_slow_stream_lives_on(impatient: LinkedNode, start: Start) -> None:
    transfer = start(impatient, impatient)
    for _ in range(4):
        transfer.feed(b"a line of a log\n")
        time.sleep(STALL / 2)
    transfer.assert_complete()


def test_an_uploader_that_half_closes_in_the_middle_is_gone(cluster: Faulty, token: str) -> None:
    with connect(cluster, 0, f"PUT /{token}/x HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf") as up:
        with Curl("-N", cluster.url(1, token, "x")) as download:
            assert download.read(4) == b"half"
            up.shutdown(socket.SHUT_WR)
            assert download.finish()[0] == CUT_OFF
        assert b"200 OK" not in up.recv(65536)


def test_a_downloader_that_half_closes_in_the_middle_is_gone(cluster: Faulty, token: str) -> None:
    with Curl("-T", "-", "-w", "%{http_code}", cluster.url(0, token, "x"), pipe=True) as upload:
        cluster.wait_state(token, "waiting")
        with connect(cluster, 1, f"GET /{token}/x HTTP/1.1\r\nHost: x\r\n\r\n") as down:
            upload.write(b"half")
            while b"half" not in down.recv(65536):
                pass
            down.shutdown(socket.SHUT_WR)
            assert upload.finish()[1].endswith(b"424")


def test_a_waiting_downloader_that_pipelined_another_request_and_left_is_forgotten(cluster: Faulty, token: str) -> None:
    """While the first request waits, the node reads nothing after the pipelined one, so it sees no end of stream."""
    assert cluster.redis is not None
    key = f"{cluster.prefix}:token:{{{id_of(token)}}}"

    def wanted() -> bytes | None:
        return cluster.redis.hget(key, "wanted:x")  # type: ignore[union-attr, return-value]

    with connect(cluster, 1, f"GET /{token}/x?wait=60 HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n"):
        wait_until(wanted, "the wish to be known")
    wait_until(lambda: not wanted(), "the wish to be forgotten", timeout=5)
    with Curl("-T", "-", cluster.url(0, token, "x"), pipe=True) as upload:
        upload.write_all(b"for the next one")
        assert curl(cluster.url(1, token, "x")).stdout == b"for the next one"
        assert upload.finish()[0] == 0


def test_a_streaming_downloader_that_pipelined_another_request_and_left_is_gone(cluster: Faulty, token: str) -> None:
    """The upload sends nothing at that moment, so the node also writes nothing that could fail."""
    with Curl("-T", "-", "-w", "%{http_code}", cluster.url(0, token, "x"), pipe=True) as upload:
        cluster.wait_state(token, "waiting")
        get = f"GET /{token}/x HTTP/1.1\r\nHost: x\r\n\r\n"
        with connect(cluster, 1, get + "GET / HTTP/1.1\r\nHost: x\r\n\r\n") as down:
            upload.write(b"half")
            while b"half" not in down.recv(65536):
                pass
        wait_until(lambda: not cluster.keys_of_test("transfer"), "the name to be free", timeout=10)
        assert upload.finish()[1].endswith(b"424")


@pytest.fixture
def stuck(cluster: Faulty, token: str) -> Iterator[socket.socket]:
    """Connect an uploader of 1 GiB whose node has stopped reading, because the downloader reads nothing."""
    with connect(cluster, 0, f"PUT /{token}/x HTTP/1.1\r\nHost: x\r\nContent-Length: {1024 * MIB}\r\n\r\n") as up:
        cluster.wait_state(token, "waiting")
        with socket.socket() as down:
            down.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            down.connect(("127.0.0.1", cluster[1].port))
            down.sendall(f"GET /{token}/x HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            while not is_paused(up):
                up.sendall(bytes(256 * 1024))
            yield up


def unread(connection: socket.socket) -> int:
    """Return how many bytes of this connection the kernel has received and the node has not read."""
    ends = [f"0100007F:{address[1]:04X}" for address in (connection.getpeername(), connection.getsockname())]
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
    return next(int(row[4].partition(":")[2], 16) for row in rows if row[1:3] == ends)


def is_paused(connection: socket.socket) -> bool:
    """Return whether the node leaves received bytes unread for a while."""
    before = unread(connection)
    for _ in range(30):
        if not before or unread(connection) != before:
            return False
        time.sleep(0.01)
    return True


def test_an_uploader_that_dies_while_its_downloader_is_paused_is_noticed(
    cluster: Faulty, token: str, stuck: socket.socket
) -> None:
    stuck.close()
    wait_until(lambda: httpx.head(cluster.url(1, token, "x")).status_code == 404, "the name to be free", timeout=5)
    assert "outcome=uploader_gone" in cluster.logs()


def test_a_dead_uploader_whose_end_is_stuck_behind_unread_bytes_does_not_keep_the_name(
    cluster: Faulty, token: str, stuck: socket.socket
) -> None:
    """The node looks for the end of the connection when another upload asks for the name."""
    fill(stuck)
    stuck.close()
    with Curl("-T", "-", cluster.url(1, token, "x"), pipe=True) as second:
        second.write_all(b"again")
        wait_until(lambda: httpx.head(cluster.url(0, token, "x")).headers.get("content-length") is None, "the name")
        assert curl(cluster.url(0, token, "x") + "?wait=10").stdout == b"again"
        assert second.finish() == (0, b"delivered 5 bytes\n")


def test_a_living_uploader_keeps_the_name_while_its_downloader_is_paused(
    cluster: Faulty, token: str, stuck: socket.socket
) -> None:
    """The node probes it with 1xx responses, which do not end the request."""
    fill(stuck)
    for _ in range(2):
        assert httpx.put(cluster.url(1, token, "x"), content=b"other", timeout=20).status_code == 409
    cluster.wait_state(token, "streaming")
    assert stuck.recv(65536).startswith(b"HTTP/1.1 100 Continue\r\n\r\n")
