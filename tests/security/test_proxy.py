"""Requests through HAProxy that it and the relay could parse differently: both read the same, or one refuses."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.cluster import Cluster, Curl, curl, id_of, over_redis
from tests.support.haproxy import HAProxy
from tests.support.raw import raw
from tests.support.redis import RedisServer


@pytest.fixture(scope="module")
def cluster(redis_server: RedisServer) -> Iterator[Cluster]:
    with over_redis(
        redis_server, "ab", trusted_proxies="127.0.0.1", upload_wait=20, download_wait=0.1, failure_rate=""
    ) as cluster:
        yield cluster


@pytest.fixture
def token(proxy: HAProxy) -> str:
    return httpx.post(proxy.url + "/token").text.strip()


@pytest.mark.parametrize(
    ("path", "statuses"),
    [
        ("//{}/x", {400}),
        ("/{}//x", {400}),
        ("/{}/x/", {400}),
        ("/{}/.", {400}),
        ("/{}/..", {400}),
        ("/{}/%2e", {400}),
        ("/{}/%2e%2e", {400}),
        ("/{}/..%2f..%2ftoken", {400}),
        ("/{}/../token", {400}),
        ("/%2e%2e/token", {401}),
        ("/{}%2fx", {401}),
        ("/{}/a%2fb", {400}),
        ("/{}/a%5cb", {400}),
        ("/{}/a%00b", {400}),
        ("/{}/a%0d%0aX-Injected:%201", {400}),
        ("/{}/%c0%ae%c0%ae", {400}),
        ("/{}/%ff", {400}),
        ("/{}/a;b", {404}),
        ("/{}/a%3fb", {404}),
        ("/{}/a%23b", {404}),
        ("/{}/%7b%7d:*", {404}),
        ("http://x/{}/x", {404}),
        ("http://evil.example/{}/x", {400}),
        ("/HEALTHZ", {401}),
        ("/healthz/", {400}),
        ("/healthz/..", {400}),
        ("*", {400, 401}),
    ],
)
def test_paths_mean_what_they_say(proxy: HAProxy, token: str, path: str, statuses: set[int]) -> None:
    request = f"GET {path.format(token)} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    with raw(proxy.url, request.encode()) as client:
        answer = client.rest()
    assert int(answer.split(b" ", 2)[1]) in statuses, answer
    assert b"\nx-injected" not in answer.lower()


@pytest.mark.parametrize(
    "headers",
    [
        "Content-Length: {length}\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: {length}",
        "Content-Length: {length}\r\nTransfer-Encoding: xchunked",
        "Content-Length: {length}\r\nTransfer-Encoding : chunked",
        "Content-Length: {length}\r\nTransfer-Encoding: chunked, identity",
        "Content-Length: {length}\r\nTransfer-Encoding: identity",
        "Content-Length: {length}\r\nTransfer-Encoding:\tchunked",
        "Content-Length: {length}\r\nTransfer-Encoding: \x0bchunked",
        "Content-Length: {length}\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x",
        "Content-Length: 0\r\nContent-Length: {length}",
        "Content-Length: +{length}",
        "Content-Length: 0{length}",
        "Content-Length: 0, {length}",
        "Content-Length: 0\r\n Transfer-Encoding: chunked",
        "X: y\nContent-Length: {length}",
        "Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: {length}",
        "Connection: Content-Length\r\nContent-Length: {length}",
    ],
)
@pytest.mark.parametrize("chunk", ["0\r\n\r\n", "0\n\n", "0;\n\r\n", "0x0\r\n\r\n", "-0\r\n\r\n", ""])
def test_no_request_hides_in_the_body_of_another(proxy: HAProxy, token: str, headers: str, chunk: str) -> None:
    """The hidden request would revoke the token."""
    hidden = f"{chunk}DELETE /{token} HTTP/1.1\r\nHost: x\r\n\r\n"
    head = f"POST /token HTTP/1.1\r\nHost: x\r\n{headers.format(length=len(hidden))}\r\n\r\n"
    with raw(proxy.url, (head + hidden).encode()) as client:
        client.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answers = client.rest()
    # If a chunked body ends before the DELETE, or there is no body, the DELETE is a request of its own and not hidden.
    by_itself = answers.count(b"HTTP/1.1 ") > 2 or b"HTTP/1.1 204" in answers
    assert by_itself or httpx.get(f"{proxy.url}/{token}").status_code == 200, answers


def test_an_upload_with_chunks_and_a_length_is_read_by_its_chunks_or_refused(proxy: HAProxy, token: str) -> None:
    """HAProxy removes the Content-Length of a chunked body (RFC 9112 section 6.3), so the chunks are the file."""
    head = f"PUT /{token}/x HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n"
    with raw(proxy.url, head.encode() + b"3\r\nabc\r\n0\r\n\r\n") as up:
        done = curl("-w", "%{http_code}", f"{proxy.url}/{token}/x?wait=3")
        assert done.stdout in (b"abc200", b"") or done.stdout.endswith(b"404")
        assert b"HTTP/1.1 " in up.head()


def test_a_client_cannot_forge_its_address(redis_server: RedisServer, tmp_path: Path) -> None:
    """HAProxy replaces the forwarding headers that a client sends."""
    with (
        over_redis(redis_server, "a", trusted_proxies="127.0.0.1", token_rate="4/hour") as own,
        HAProxy(own.nodes, tmp_path) as proxy,
    ):
        forged = [{"x-forwarded-for": f"203.0.113.{n}", "forwarded": f"for=203.0.113.{n}"} for n in range(5)]
        answers = [httpx.post(proxy.url + "/token", headers=headers).status_code for headers in forged]
    assert answers == [200] * 4 + [429]


def test_a_name_of_special_characters_is_one_name(cluster: Cluster, proxy: HAProxy, token: str) -> None:
    """Its key in Redis cannot be mistaken for another: every brace, colon, star and space is percent-encoded."""
    name = "%7B%7D%3A%2A%20%5B%5D%3F%22%27%24%28x%29%F0%9F%98%80"
    with Curl("-T", "-", "--path-as-is", f"{proxy.url}/{token}/{name}", pipe=True) as source:
        source.write_all(b"data")
        cluster.wait_state(token, "waiting")
        assert list(cluster.keys("transfer")) == [f"{cluster.prefix}:transfer:{{{id_of(token)}}}:{name}"]
        assert curl("--globoff", f"{proxy.url}/{token}/{name}").stdout == b"data"
        assert source.finish()[0] == 0


def test_a_token_cannot_be_guessed(proxy: HAProxy, token: str) -> None:
    """Neither a part of the token nor a pattern opens it, and all wrong guesses get the same response."""
    wrong = [token[:-1], token + "A", token.swapcase(), "*", token[:-1] + "*", "%3F" * 22, token[:-1] + "%00"]
    answers = {httpx.get(f"{proxy.url}/{guess}/x").text for guess in wrong}
    assert len(answers) == 1
    assert "unknown or has expired" in answers.pop()
