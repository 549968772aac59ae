"""Bytes behind a complete request that are no request: first the response that is due, then 400 and the end of the
connection (RFC 9112 section 9.3.2). A file that grows while it is uploaded sends such bytes."""

import os
import re
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.support.cluster import Cluster, curl
from tests.support.raw import raw
from tests.support.wait import wait_until

GARBAGE = b"\0 more of a log"
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


def put(token: str, size: int, *headers: str) -> bytes:
    lines = [f"PUT /{token}/x HTTP/1.1", "Host: x", f"Content-Length: {size}", *headers, "", ""]
    return "\r\n".join(lines).encode()


def statuses(answers: bytes) -> list[bytes]:
    return re.findall(rb"HTTP/1\.1 (\d{3}) ", answers)


@pytest.mark.parametrize("size", [0, 5, 3_000_000])
@pytest.mark.parametrize("more", [len(GARBAGE), 200_000, 20_000_000])
def test_a_file_that_grows_is_delivered_up_to_its_declared_length(
    cluster: Cluster, token: str, size: int, more: int
) -> None:
    body = os.urandom(size)
    with raw(cluster[0].url) as up, ThreadPoolExecutor(1) as pool:
        sending = pool.submit(up.send, put(token, size) + body + GARBAGE.ljust(more))
        assert curl(cluster.url(1, token, "x") + "?wait=10").stdout == body
        answers = up.rest()
        sending.result(timeout=20)
    assert statuses(answers) == [b"200", b"400"], answers
    assert f"delivered {size} bytes\n".encode() in answers


def test_a_chunked_body_with_bytes_behind_its_end_is_delivered(cluster: Cluster, token: str) -> None:
    head = f"PUT /{token}/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    with raw(cluster[0].url, head + b"5\r\nhello\r\n0\r\n\r\n" + GARBAGE) as up:
        assert httpx.get(cluster.url(1, token, "x") + "?wait=10").content == b"hello"
        assert statuses(up.rest()) == [b"200", b"400"]


def test_bytes_behind_the_last_request_of_a_connection_get_nothing(cluster: Cluster, token: str) -> None:
    with raw(cluster[0].url, put(token, 5, "Connection: close") + b"hello" + GARBAGE) as up:
        assert httpx.get(cluster.url(1, token, "x") + "?wait=10").content == b"hello"
        assert statuses(up.rest()) == [b"200"]


@pytest.mark.parametrize("when", ["at once", "while it waits", "in the middle"])
@pytest.mark.parametrize("more", [10, 300_000])
def test_bytes_behind_a_download_harm_neither_side(cluster: Cluster, token: str, when: str, more: int) -> None:
    get = f"GET /{token}/x?wait=20 HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    garbage = GARBAGE.ljust(more)
    with raw(cluster[1].url, get + (garbage if when == "at once" else b"")) as down:
        if when == "while it waits":
            httpx.get(cluster.url(1, token, "y") + "?wait=0.3")
            down.send(garbage)
        with raw(cluster[0].url, put(token, 10) + b"begun") as up:
            answer = down.head()
            while not answer.endswith(b"begun"):
                answer += down.read()
            if when == "in the middle":
                down.send(garbage)
            up.send(b"ended")
            assert down.rest() == b"ended"
            down.socket.close()
            assert up.head().startswith(b"HTTP/1.1 200 ")
    assert statuses(answer) == [b"200"]


def test_requests_before_the_bytes_are_all_answered_in_their_order(cluster: Cluster, token: str) -> None:
    missing = f"GET /{token}/x?wait=0.5 HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    with raw(cluster[0].url, missing + HEALTH + GARBAGE) as client:
        assert statuses(client.rest()) == [b"404", b"200", b"400"]


def test_a_faulty_body_is_refused_after_the_requests_before_it(cluster: Cluster, token: str) -> None:
    """The faulty request itself is not begun: it would claim the name."""
    missing = f"GET /{token}/x?wait=0.5 HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    faulty = f"PUT /{token}/y HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nnone\r\n".encode()
    with raw(cluster[0].url, missing + HEALTH + faulty) as client:
        assert statuses(client.rest()) == [b"404", b"200", b"400"]
    assert httpx.get(cluster.url(1, token, "y") + "?wait=0").status_code == 404


def test_a_faulty_body_ends_its_own_upload_with_400(cluster: Cluster, token: str) -> None:
    head = f"PUT /{token}/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n".encode()
    with raw(cluster[0].url, head) as up, raw(cluster[1].url) as down:
        down.send(f"GET /{token}/x?wait=10 HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        answer = down.head()
        while b"hello" not in answer:
            answer += down.read()
        up.send(b"none\r\n")
        assert statuses(up.rest()) == [b"400"]
        assert b"0\r\n\r\n" not in down.rest()


def test_a_client_that_leaves_is_noticed_though_its_bytes_were_no_request(cluster: Cluster, token: str) -> None:
    with raw(cluster[0].url, put(token, 5) + b"hell") as up:
        cluster.wait_state(token, "waiting")
        up.send(b"o" + GARBAGE)
    wait_until(lambda: httpx.head(cluster.url(1, token, "x")).status_code == 404, "the name to be free", timeout=3)
