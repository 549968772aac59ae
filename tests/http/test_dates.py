"""`Date` is the time of the response, on every response (RFC 9110 section 6.6.1)."""

import time
from email.utils import parsedate_to_datetime

import pytest

from tests.support.cluster import Cluster
from tests.support.raw import raw

GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n"


def age(answer: bytes) -> float:
    """Return how many seconds ago the response was made, as it says itself."""
    [line] = [line for line in answer.split(b"\r\n\r\n")[0].split(b"\r\n") if line.lower().startswith(b"date:")]
    return time.time() - parsedate_to_datetime(line.decode()[5:].strip()).timestamp()


@pytest.mark.parametrize("wait", ["0", "4"])
def test_a_response_that_took_long_says_when_it_was_made(cluster: Cluster, token: str, wait: str) -> None:
    with raw(cluster[0].url, f"GET /{token}/x?wait={wait} HTTP/1.1\r\nHost: x\r\n\r\n".encode()) as client:
        answer = client.head()
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert age(answer) < 2.5


def test_an_upload_for_which_nobody_came_says_when_that_was_known(cluster: Cluster, token: str) -> None:
    """After 4 s, in these tests."""
    with raw(cluster[0].url, f"PUT /{token}/x HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\na".encode()) as client:
        answer = client.head()
    assert answer.startswith(b"HTTP/1.1 504 ")
    assert age(answer) < 2.5


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (GET + b"\r\n", b"200"),
        (b"OPTIONS /healthz HTTP/1.1\r\nHost: x\r\n\r\n", b"204"),
        (b"garbage\r\n\r\n", b"400"),
        (GET + b"X : y\r\n\r\n", b"400"),
        (GET + b"Transfer-Encoding: gzip, chunked\r\n\r\n", b"501"),
        (GET + b"X: " + b"a" * 70_000, b"431"),
        (GET.replace(b"1.1", b"2.0") + b"\r\n", b"505"),
        (b"PUT /" + b"A" * 30 + b"/x HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n", b"401"),
    ],
)
def test_every_response_has_one(cluster: Cluster, request_: bytes, status: bytes) -> None:
    with raw(cluster[0].url, request_) as client:
        answer = client.head()
    assert answer.startswith(b"HTTP/1.1 " + status)
    assert -1 < age(answer) < 2.5
