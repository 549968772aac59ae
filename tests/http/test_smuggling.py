"""Requests with contradictory statements about their body. None may make an incomplete download look complete."""

import socket
from urllib.parse import urlsplit

from tests.support.cluster import Cluster, curl
from tests.support.raw import raw

CHUNKED = b"5\r\nhello\r\n0\r\n\r\n"


def test_garbage_behind_a_download_and_another_request_is_not_answered_into_it(cluster: Cluster, token: str) -> None:
    """Such an answer would count as bytes of the file. Nor does it end the download."""
    put = f"PUT /{token}/x HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nbegun"
    get = f"GET /{token}/x?wait=20 HTTP/1.1\r\nHost: x\r\n\r\n"
    with raw(cluster[0].url, put.encode()) as up, raw(cluster[1].url, get.encode()) as down:
        answer = down.head()
        while not answer.endswith(b"begun"):
            answer += down.read()
        down.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n\0garbage\r\n\r\n")
        up.send(bytes(995))
        assert down.rest() == bytes(995)
        assert up.head().startswith(b"HTTP/1.1 200 ")


def test_two_transfer_encodings_are_not_an_empty_file(cluster: Cluster, token: str) -> None:
    with socket.create_connection(("127.0.0.1", urlsplit(cluster[0].url).port or 0), timeout=20) as up:
        head = f"PUT /{token}/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n"
        up.sendall(head.encode() + CHUNKED)
        done = curl("-w", "%{http_code}", cluster.url(1, token, "x"))
        assert done.stdout in (b"hello200", b"hello") or not done.stdout.endswith(b"200"), done
        if done.stdout.endswith(b"200"):
            assert b"200" in up.recv(65536)
