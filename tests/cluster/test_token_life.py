"""How long a token lives, measured by the TTL of its key in Redis."""

import contextlib

import httpx
import pytest

from tests.support.cluster import CUT_OFF, Cluster, Curl, curl, id_of
from tests.support.wait import wait_until


def ttl(cluster: Cluster, token: str) -> float:
    assert cluster.redis is not None
    milliseconds: int = cluster.redis.pttl(f"{cluster.prefix}:token:{{{id_of(token)}}}")
    return milliseconds / 1000


def set_ttl(cluster: Cluster, token: str, seconds: float) -> None:
    assert cluster.redis is not None
    assert cluster.redis.pexpire(f"{cluster.prefix}:token:{{{id_of(token)}}}", int(seconds * 1000))


def about(seconds: float) -> object:
    return pytest.approx(seconds, abs=5)


def test_a_new_token_lives_20_minutes(cluster: Cluster, token: str) -> None:
    assert ttl(cluster, token) == about(20 * 60)


def test_get_and_put_of_a_name_are_uses_and_other_requests_are_not(cluster: Cluster, token: str) -> None:
    httpx.get(cluster.url(0, token, "x") + "?wait=0")
    assert ttl(cluster, token) == about(25 * 60)
    httpx.get(cluster.url(0, token))
    httpx.head(cluster.url(0, token, "x"))
    httpx.delete(cluster.url(0, token, "x"))
    assert ttl(cluster, token) == about(25 * 60)
    with Curl("-T", "-", cluster.url(1, token, "x"), pipe=True):
        cluster.wait_state(token, "waiting")
        assert ttl(cluster, token) == about(30 * 60)
        httpx.put(cluster.url(2, token, "x"), content=b"")  # a use, too: the 409 comes after the token check
        assert ttl(cluster, token) == about(35 * 60)


def test_a_waiting_download_is_one_use(cluster: Cluster, token: str) -> None:
    httpx.get(cluster.url(0, token, "x") + "?wait=1")
    assert ttl(cluster, token) == about(25 * 60)


def test_uses_extend_a_life_to_an_hour_from_now_at_most(cluster: Cluster, token: str) -> None:
    for _ in range(10):
        httpx.get(cluster.url(0, token, "x") + "?wait=0")
    assert ttl(cluster, token) == about(60 * 60)


def test_a_token_whose_transfer_streams_keeps_at_least_five_minutes(cluster: Cluster, token: str) -> None:
    with Curl("-T", "-", cluster.url(0, token, "x"), pipe=True) as upload:
        cluster.wait_state(token, "waiting")
        with Curl("-N", cluster.url(1, token, "x")) as download:
            upload.write(b"a")
            assert download.read(1) == b"a"
            set_ttl(cluster, token, 20)
            wait_until(lambda: ttl(cluster, token) > 290, "the token to be kept alive")
            upload.close()
            assert download.finish()[0] == 0


def test_an_expired_token_is_refused(cluster: Cluster, token: str) -> None:
    set_ttl(cluster, token, 0.1)
    wait_until(lambda: httpx.get(cluster.url(0, token)).status_code == 401, "the token to expire")
    assert curl("-w", "%{http_code}", "-d", "x", cluster.url(1, token, "x")).stdout.endswith(b"401")


def test_an_operator_revokes_a_token_in_redis(cluster: Cluster, token: str) -> None:
    """Deleting the token's key with `redis-cli DEL` ends its streams too."""
    assert cluster.redis is not None
    with Curl("-T", "-", "-w", "%{http_code}", cluster.url(0, token, "x"), pipe=True) as upload:
        cluster.wait_state(token, "waiting")
        with Curl("-N", cluster.url(1, token, "x")) as download:
            upload.write(b"a")
            assert download.read(1) == b"a"
            cluster.redis.delete(f"{cluster.prefix}:token:{{{id_of(token)}}}")
            assert download.finish()[0] == CUT_OFF
        told = upload.finish()[1]
        assert told.endswith(b"401")
        assert b"is gone" in told
        assert b"revoked" not in told


def test_a_token_that_redis_has_evicted_was_not_revoked(cluster: Cluster, token: str) -> None:
    """Its waiting upload is told the truth as soon as its node looks, which a wake-up makes it do."""
    assert cluster.redis is not None
    with Curl("-T", "-", "-w", "%{http_code}", cluster.url(0, token, "x"), pipe=True) as upload:
        cluster.wait_state(token, "waiting")
        transfer: bytes = cluster.redis.hget(f"{cluster.prefix}:transfer:{{{id_of(token)}}}:x", "id")  # type: ignore[assignment]
        cluster.redis.delete(f"{cluster.prefix}:token:{{{id_of(token)}}}")
        cluster.put_into_inbox(0, {b"about": transfer})
        told = upload.finish()[1]
    assert told.endswith(b"401")
    assert b"is gone" in told
    assert b"revoked" not in told


@pytest.mark.parametrize("joined", [False, True], ids=["waiting", "streaming"])
def test_a_token_that_a_client_revokes_was_revoked(cluster: Cluster, token: str, joined: bool) -> None:
    with Curl("-T", "-", "-w", "%{http_code}", cluster.url(0, token, "x"), pipe=True) as upload:
        cluster.wait_state(token, "waiting")
        with Curl("-N", cluster.url(1, token, "x")) if joined else contextlib.nullcontext() as download:
            if download is not None:
                upload.write(b"a")
                assert download.read(1) == b"a"
            assert httpx.delete(cluster.url(2, token)).status_code == 204
            told = upload.finish()[1]
    assert told.endswith(b"401")
    assert b"The token was revoked" in told
