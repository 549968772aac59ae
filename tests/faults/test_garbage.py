"""Input that is not a valid request, that is endless, or that stops in the middle.

The node answers with a status and one line if the client can still read them, always closes the connection, and
serves its other clients as before.
"""

import contextlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.cluster import CUT_OFF, Cluster, Curl, NodeProcess, alone
from tests.support.raw import raw
from tests.support.wait import wait_until

#: Maximum time for a request's header, in seconds.
HEADER_TIMEOUT = 1
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Start one node with a short timeout for headers."""
    with alone(header_timeout=HEADER_TIMEOUT) as cluster:
        yield cluster


@pytest.fixture
def url(cluster: Cluster) -> str:
    return cluster[0].url


@pytest.fixture
def token(cluster: Cluster) -> str:
    return cluster.token()


def test_a_header_without_end_is_431_before_it_costs_anything(cluster: Cluster, url: str) -> None:
    before = cluster[0].rss()
    with raw(url, b"GET / HTTP/1.1\r\nHost: x\r\nX: ") as client:
        assert client.send_until_refused(b"a" * MIB, 120 * MIB) < 32 * MIB  # what the buffers on the way hold
        head = client.rest()
    assert head.startswith(b"HTTP/1.1 431 ") or not head  # a client that goes on sending may miss the response
    assert cluster[0].rss() - before < 16 * MIB


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 70_000, id="one header"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 70_000 + b"\r\n\r\n", id="one whole header"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a: b\r\n" * 20_000, id="many headers"),
        pytest.param(b"GET /" + b"a" * 70_000, id="a path"),
        pytest.param(b"\r\n" * 40_000, id="empty lines"),
    ],
)
def test_a_long_header_is_431_and_the_line_says_how_long_it_may_be(url: str, request_: bytes) -> None:
    with raw(url, request_) as client:
        answer = client.rest()
    assert answer.startswith(b"HTTP/1.1 431 Request Header Fields Too Large\r\n"), answer[:200]
    assert b"at most 65536 bytes" in answer
    assert b"x-content-type-options: nosniff" in answer
    assert b"relay-node: alone-" in answer  # the node's whole id, not only its name


def test_a_header_just_below_the_limit_is_served(url: str) -> None:
    assert httpx.get(url + "/healthz", headers={"x": "a" * 60_000}).status_code == 200


@pytest.mark.parametrize(
    "part",
    [pytest.param(b"5;x=" + b"a" * 400_000, id="extension"), pytest.param(b"0\r\nX: " + b"a" * 400_000, id="trailer")],
)
def test_chunk_extensions_and_trailers_are_bounded_too(cluster: Cluster, token: str, part: bytes) -> None:
    """The download never looks complete: it ends without its last chunk."""
    with raw(cluster[0].url) as up:
        head = f"PUT /{token}/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n"
        up.send(head.encode())
        with Curl("-N", cluster.url(0, token, "x")) as download:
            assert download.read(1) == b"a"
            up.send_until_refused(part, 1)
            assert download.finish()[0] == CUT_OFF
        assert up.head().startswith(b"HTTP/1.1 431 ")


def test_trailers_are_not_headers(cluster: Cluster, token: str) -> None:
    """RFC 9110 section 6.5.1: an `Accept` that comes after the body does not change the response."""
    with raw(cluster[0].url) as up:
        head = f"PUT /{token}/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        up.send(head.encode() + b"1\r\na\r\n0\r\nAccept: application/json\r\n\r\n")
        assert httpx.get(cluster.url(0, token, "x")).content == b"a"
        assert b"content-type: text/plain" in up.head()


def test_a_header_that_stops_in_the_middle_is_408(url: str) -> None:
    with raw(url, b"GET / HTTP/1.1\r\nHo") as client:
        begun = time.monotonic()
        answer = client.rest()
        assert time.monotonic() - begun < 10 * HEADER_TIMEOUT
    assert answer.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert answer.endswith(b"did not arrive within 1 s: try again.\n")


def test_a_byte_now_and_then_does_not_extend_the_timeout(url: str) -> None:
    with raw(url, b"GET / HTTP/1.1\r\n") as client:
        client.socket.settimeout(0.1)
        begun, answer = time.monotonic(), b""
        while not answer:
            assert time.monotonic() - begun < 10 * HEADER_TIMEOUT
            client.send(b"a")
            with contextlib.suppress(TimeoutError):
                answer = client.read()
        assert answer.startswith(b"HTTP/1.1 408 ")


def test_the_second_request_of_a_connection_has_the_same_time(url: str) -> None:
    with raw(url, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n") as client:
        assert client.head().startswith(b"HTTP/1.1 200 ")
        client.send(b"GET /healthz HTTP/1.1\r\nHo")
        assert b"HTTP/1.1 408 " in client.rest()


def test_a_client_that_sends_nothing_is_closed_without_a_response(url: str) -> None:
    with raw(url) as client:
        assert client.rest() == b""


def test_an_upload_may_wait_longer_than_the_header_timeout(cluster: Cluster, token: str) -> None:
    with Curl("-T", "-", cluster.url(0, token, "x"), pipe=True) as source:
        source.write_all(b"data")
        cluster.wait_state(token, "waiting")
        answer = httpx.get(cluster.url(0, token, "y") + f"?wait={2 * HEADER_TIMEOUT}")  # a longer wait
        assert answer.status_code == 404
        assert httpx.get(cluster.url(0, token, "x")).content == b"data"
        assert source.finish() == (0, b"delivered 4 bytes\n")


@pytest.mark.parametrize("method", ["GET", "DELETE", "POST"])
def test_the_body_of_an_answered_request_is_not_read_for_ever(url: str, method: str) -> None:
    path = "/token" if method == "POST" else f"/{'A' * 30}"
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999999\r\n\r\n"
    with raw(url, head.encode()) as client:
        assert client.send_until_refused(b"x" * MIB, 400 * MIB) < 64 * MIB


def test_a_body_that_stops_in_the_middle_does_not_hold_the_connection(url: str) -> None:
    with raw(url, b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n1") as client:
        begun = time.monotonic()
        assert client.rest().endswith(b"alive\n")
        assert time.monotonic() - begun < 10 * HEADER_TIMEOUT


def test_a_small_body_of_a_get_does_no_harm(url: str) -> None:
    request = b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n123456789"
    with raw(url, request) as client:
        assert client.head().startswith(b"HTTP/1.1 200 ")
        client.send(request)
        assert b"HTTP/1.1 200 " in client.head()


def test_pipelined_requests_are_not_buffered_without_bound(cluster: Cluster, url: str) -> None:
    before = cluster[0].rss()
    with raw(url) as client:
        client.send_until_refused(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 10_000, 40 * MIB)
    assert cluster[0].rss() - before < 32 * MIB


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /healthz HTTP/2.0\r\nHost: x\r\n\r\n", 505),
        (b"GET /healthz HTTP/0.9\r\nHost: x\r\n\r\n", 505),
        (b"GET /healthz\r\n\r\n", 505),
        (b"GET /healthz HTTP/1.2\r\nHost: x\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"SSH-2.0-OpenSSH_9.2\r\n", 400),
        (b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET http://[ HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 401),
        (b"PUT /a/b HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"PUT /a/b HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"PUT /a/b HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
        (b"PUT /a/b HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\nX : y\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: a\x00b\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.0\r\n\r\n", 200),
    ],
)
def test_an_invalid_request_is_refused_with_one_line(url: str, request_: bytes, status: int) -> None:
    with raw(url, request_) as client:
        answer = client.rest()
    assert answer.startswith(f"HTTP/1.1 {status} ".encode()), answer
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"x-content-type-options: nosniff" in head
    assert b"content-security-policy: default-src 'none'" in head
    assert body.count(b"\n") == 1


def test_http_1_0_is_not_told_to_continue(cluster: Cluster, token: str) -> None:
    """RFC 9110 section 10.1.1: an HTTP/1.0 client does not know interim responses."""
    with raw(cluster[0].url) as up:
        up.send(f"PUT /{token}/x HTTP/1.0\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n".encode())
        cluster.wait_state(token, "waiting")
        with Curl(cluster.url(0, token, "x")) as download:
            cluster.wait_state(token, "streaming")
            up.send(b"data")
            assert download.finish() == (0, b"data")
        assert up.rest().startswith(b"HTTP/1.1 200 ")


def test_the_kernel_probes_a_silent_client(cluster: Cluster) -> None:
    """TCP keep-alive notices a client whose machine has vanished. In /proc/net/tcp, timer `02` is keep-alive."""
    with raw(cluster[0].url) as client:
        # Both ends: a client of another server, such as Redis, may have the same port.
        ends = tuple(f":{port:04X}" for port in (cluster[0].port, client.socket.getsockname()[1]))

        def timer() -> str:
            rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
            ours = (row[5] for row in rows if row[1].endswith(ends[0]) and row[2].endswith(ends[1]))
            return next((timer for timer in ours if timer.startswith("02:")), "")

        hundredths = wait_until(timer, "the node to accept, and a keep-alive timer").removeprefix("02:")
        assert int(hundredths, 16) <= 3100


def test_thousands_of_silent_clients_harm_nobody(cluster: Cluster) -> None:
    node = cluster[0]
    count, before = 2000, node.rss()
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(contextlib.closing(socket.create_connection(("127.0.0.1", node.port), timeout=30)))
        token = cluster.token()
        with Curl("-T", "-", cluster.url(0, token, "x"), pipe=True) as source:
            source.write_all(b"data")
            assert httpx.get(cluster.url(0, token, "x") + "?wait=20").content == b"data"
        assert (node.rss() - before) / count < 32 * 1024
        wait_until(lambda: connections(node) < count / 10, "the silent clients to be closed")


def connections(node: NodeProcess) -> int:
    """Return the number of established connections to the node."""
    ours = f"{node.port:04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(row[1].endswith(":" + ours) and row[3] == "01" for row in rows)
