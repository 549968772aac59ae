"""Requests with contradictory statements about their body. None may make an incomplete download look complete."""

import socket
from urllib.parse import urlsplit

import pytest

from tests.support.cluster import Cluster, curl
from tests.support.raw import raw

CHUNKED = b"5\r\nhello\r\n0\r\n\r\n"


def send(cluster: Cluster, token: str, headers: str, body: bytes) -> bytes:
    """Send a PUT on a plain socket, and return the status line of the response."""
    with socket.create_connection(("127.0.0.1", urlsplit(cluster[0].url).port or 0), timeout=20) as up:
        up.sendall(f"PUT /{token}/x HTTP/1.1\r\nHost: x\r\n{headers}\r\n\r\n".encode() + body)
        return up.recv(65536).partition(b"\r\n")[0]


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ("Connection: Upgrade\r\nUpgrade: h2c\r\nTransfer-Encoding: chunked", CHUNKED),
        ("Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 5", b"hello"),
        ("Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 5", b"hello"),
    ],
)
def test_an_upload_that_wants_an_upgrade_is_refused(cluster: Cluster, token: str, headers: str, body: bytes) -> None:
    assert b"400" in send(cluster, token, headers, body)
    assert curl("-w", "%{http_code}", cluster.url(1, token, "x") + "?wait=0").stdout.endswith(b"404")


def test_garbage_after_a_pipelined_request_gets_no_response_into_a_download(cluster: Cluster, token: str) -> None:
    """The downloader would take such a response for bytes of the file."""
    put = f"PUT /{token}/x HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nbegun"
    get = f"GET /{token}/x?wait=20 HTTP/1.1\r\nHost: x\r\n\r\n"
    with raw(cluster[0].url, put.encode()), raw(cluster[1].url, get.encode()) as down:
        answer = down.head()
        while not answer.endswith(b"begun"):
            answer += down.read()
        down.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n\0garbage\r\n\r\n")
        assert down.rest() == b""


def test_two_transfer_encodings_are_not_an_empty_file(cluster: Cluster, token: str) -> None:
    with socket.create_connection(("127.0.0.1", urlsplit(cluster[0].url).port or 0), timeout=20) as up:
        head = f"PUT /{token}/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n"
        up.sendall(head.encode() + CHUNKED)
        done = curl("-w", "%{http_code}", cluster.url(1, token, "x"))
        assert done.stdout in (b"hello200", b"hello") or not done.stdout.endswith(b"200"), done
        if done.stdout.endswith(b"200"):
            assert b"200" in up.recv(65536)
