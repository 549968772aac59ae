"""Limits: the transfers of one token at a time, its bytes in total, and the duration of a transfer."""

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager

import httpx
import pytest

from tests.support.cluster import CUT_OFF, Cluster, Curl, curl, id_of, over_redis
from tests.support.raw import Raw, raw
from tests.support.redis import RedisServer
from tests.support.wait import wait_until

SETTINGS: dict[str, object] = {"token_names": 2, "token_bytes": 1000, "max_duration": 2, "upload_wait": 60}


@pytest.fixture(scope="module")
def limited(redis_server: RedisServer) -> Iterator[Cluster]:
    with over_redis(redis_server, "ab", **SETTINGS) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def roomy(redis_server: RedisServer) -> Iterator[Cluster]:
    """Two nodes that let a token have any number of names, and 1000 bytes."""
    with over_redis(redis_server, "ab", token_bytes=1000) as cluster:
        yield cluster


@pytest.fixture
def token(limited: Cluster) -> str:
    return limited.token()


def test_a_token_has_a_maximum_of_uploads_at_a_time(limited: Cluster, token: str) -> None:
    with (
        Curl("-T", "-", limited.url(0, token, "a"), pipe=True) as one,
        Curl("-T", "-", limited.url(1, token, "b"), pipe=True),
    ):
        limited.wait_state(token, "waiting", 2)
        answer = httpx.put(limited.url(1, token, "c"), content=b"x")
        assert answer.status_code == 429
        assert answer.headers["retry-after"] == "5"
        assert "another token" in answer.text
        assert httpx.put(limited.url(1, token, "b"), content=b"x").status_code == 409  # the more useful error
        assert httpx.get(limited.url(1, token, "d") + "?wait=1").status_code == 429
        assert httpx.get(limited.url(1, token, "d") + "?wait=0").status_code == 404
        one.write_all(b"data")
        assert httpx.get(limited.url(1, token, "a")).content == b"data"
        assert one.finish()[0] == 0
        with Curl("-T", "-", limited.url(1, token, "c"), pipe=True):
            limited.wait_state(token, "waiting", 2)


def test_downloads_that_wait_count_too(limited: Cluster, token: str) -> None:
    with Curl(limited.url(0, token, "a") + "?wait=60"), Curl(limited.url(1, token, "b") + "?wait=60"):
        while httpx.get(limited.url(0, token, "c") + "?wait=0.1").status_code != 429:
            pass
        assert httpx.put(limited.url(1, token, "c"), content=b"x").status_code == 429
        # What they wait for is no other name.
        assert httpx.put(limited.url(1, token, "a"), content=b"x").status_code == 200


def transfer(cluster: Cluster, token: str, data: bytes) -> tuple[int, bytes]:
    """Run a transfer. Return the exit status of the uploader's curl, and its output, which ends in the HTTP status."""
    with Curl("-T", "-", "-w", "%{http_code}", cluster.url(0, token, "x"), pipe=True) as source:
        cluster.wait_state(token, "waiting")
        with Curl("-fo", "/dev/null", cluster.url(1, token, "x")) as download:
            source.write_all(data)
            answer = source.finish()
            assert (download.finish()[0] == 0) is answer[1].endswith(b"200")
    return answer


def test_a_token_carries_a_maximum_of_bytes(limited: Cluster, token: str) -> None:
    assert transfer(limited, token, b"x" * 600)[1].endswith(b"200")
    answer = httpx.put(limited.url(0, token, "x"), content=b"x" * 500)
    assert answer.status_code == 429
    assert "all but 400 of the bytes" in answer.text
    said = transfer(limited, token, b"x" * 500)[1]  # with an unknown length
    assert said.endswith(b"413")
    assert b"at most 400 bytes" in said
    assert transfer(limited, token, b"x" * 400)[1].endswith(b"200")
    answer = httpx.put(limited.url(0, token, "x"), content=b"")
    assert answer.status_code == 429


def put(cluster: Cluster, node: int, token: str, name: str, length: int) -> AbstractContextManager[Raw]:
    """Begin an upload with a declared length, and send none of it."""
    return raw(
        cluster[node].url, f"PUT /{token}/{name} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n".encode()
    )


def test_uploads_at_the_same_time_do_not_overspend_a_token(roomy: Cluster) -> None:
    """The declared length is reserved when the upload begins."""
    token = roomy.token()
    with put(roomy, 0, token, "first", 900) as first:
        roomy.wait_state(token, "waiting")
        for number in range(11):
            with put(roomy, number % 2, token, f"{number}", 900) as refused:
                assert b" 429 " in refused.head()
        first.send(b"x" * 900)
        assert httpx.get(roomy.url(1, token, "first")).content == b"x" * 900
        assert b" 200 " in first.head()
    assert httpx.put(roomy.url(0, token, "more"), content=b"x" * 101).status_code == 429


def test_uploads_of_unknown_length_at_the_same_time_do_not_overspend_a_token(roomy: Cluster) -> None:
    """Their bytes are reserved before they are written."""
    token = roomy.token()
    with contextlib.ExitStack() as stack:
        uploads = [stack.enter_context(Curl("-T", "-", roomy.url(0, token, f"{n}"), pipe=True)) for n in range(4)]
        roomy.wait_state(token, "waiting", 4)
        downloads = [stack.enter_context(Curl("-N", roomy.url(1, token, f"{n}"))) for n in range(4)]
        for upload in uploads:
            with contextlib.suppress(BrokenPipeError):
                upload.write(b"x" * 400)
        for upload in uploads:
            upload.close()
        got = [download.finish()[1] for download in downloads]
        delivered = [b"delivered" in upload.finish()[1] for upload in uploads]
    assert sum(map(len, got)) <= 1000
    assert sum(delivered) >= 1


def test_what_was_reserved_and_not_sent_can_be_used_again(roomy: Cluster) -> None:
    token = roomy.token()
    with put(roomy, 0, token, "a", 900):
        roomy.wait_state(token, "waiting")
        assert httpx.put(roomy.url(1, token, "b"), content=b"x" * 200).status_code == 429
    wait_until(lambda: httpx.head(roomy.url(1, token, "a")).status_code == 404, "the uploader to be gone")
    with put(roomy, 1, token, "b", 1000):
        roomy.wait_state(token, "waiting")


def test_what_was_reserved_by_a_transfer_whose_keys_are_gone_can_be_used_again(roomy: Cluster) -> None:
    """Its node died, and nobody looked before its claim expired."""
    assert roomy.redis is not None
    token = roomy.token()
    with put(roomy, 0, token, "a", 900):
        roomy.wait_state(token, "waiting")
        roomy.redis.delete(f"{roomy.prefix}:transfer:{{{id_of(token)}}}:a")
        with put(roomy, 1, token, "b", 1000):
            roomy.wait_state(token, "waiting")
    assert roomy.redis.hget(f"{roomy.prefix}:token:{{{id_of(token)}}}", "reserved") in (b"1000", b"0")


def test_a_transfer_has_a_maximum_duration(limited: Cluster, token: str) -> None:
    with Curl("-T", "-", "-w", "%{http_code}", limited.url(0, token, "x"), pipe=True) as source:
        limited.wait_state(token, "waiting")
        with Curl("-N", limited.url(1, token, "x")) as download:
            source.write(b"a")
            assert download.read(1) == b"a"
            assert download.finish()[0] == CUT_OFF
        said = source.finish()[1]
        assert said.endswith(b"413")
        assert b"2 s at most" in said
    assert any("outcome=too_long" in node.log() for node in limited.nodes)


def test_waiting_does_not_count_towards_the_maximum_duration(limited: Cluster, token: str) -> None:
    with Curl("-T", "-", limited.url(0, token, "x"), pipe=True) as source:
        source.write_all(b"data")
        limited.wait_state(token, "waiting")
        assert curl(limited.url(0, token, "y") + "?wait=2.5").returncode == 0
        assert curl(limited.url(0, token, "x")).stdout == b"data"
        assert source.finish()[0] == 0
