"""Which clients get a token, and how many: the secret, the rates, and the address under which a client counts."""

import secrets
from collections.abc import Iterator

import httpx
import pytest

from tests.support.cluster import Cluster, NodeProcess, over_redis
from tests.support.redis import RedisServer

PROXY = "127.0.0.1"
SETTINGS: dict[str, object] = {
    "token_secret": "old-secret,new-secret",
    "token_rate": "3/hour",
    "failure_rate": "5/hour",
    "trusted_proxies": f"{PROXY},10.0.0.0/8",
}


@pytest.fixture(scope="module")
def guarded(redis_server: RedisServer) -> Iterator[Cluster]:
    """Start two nodes over one Redis that require a secret. They trust this machine as a proxy."""
    with over_redis(redis_server, "ab", **SETTINGS) as cluster:
        yield cluster
    assert "-secret" not in cluster.logs()


def post(cluster: Cluster, node: int, address: str, secret: str | None = "new-secret") -> httpx.Response:
    headers = {"x-forwarded-for": address} | ({"authorization": f"Bearer {secret}"} if secret is not None else {})
    return httpx.post(cluster[node].url + "/token", headers=headers)


@pytest.mark.parametrize("secret", [None, "wrong", "old-secret,new-secret", "old-secre"])
def test_without_the_secret_a_client_gets_no_token(guarded: Cluster, secret: str | None) -> None:
    answer = post(guarded, 0, f"198.51.100.{secrets.randbelow(250)}", secret)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert "Authorization: Bearer" in answer.text


@pytest.mark.parametrize("secret", ["old-secret", "new-secret"])
def test_each_of_the_secrets_is_accepted(guarded: Cluster, secret: str) -> None:
    assert post(guarded, 0, f"2001:db8:0:{secrets.token_hex(2)}::1", secret).status_code == 200


def test_the_token_rate_of_an_address_counts_all_nodes_together(guarded: Cluster) -> None:
    for node in (0, 1, 0):
        assert post(guarded, node, "192.0.2.1").status_code == 200
    for node in (0, 1):
        answer = post(guarded, node, "192.0.2.1")
        assert answer.status_code == 429
        assert 1 <= int(answer.headers["retry-after"]) <= 3600
        assert f"try again in {answer.headers['retry-after']} s." in answer.text
    assert post(guarded, 0, "192.0.2.2").status_code == 200


def test_ipv6_is_counted_by_its_network(guarded: Cluster) -> None:
    for last in range(3):
        assert post(guarded, 0, f"2001:db8:ffff:1::{last}").status_code == 200
    assert post(guarded, 1, "2001:db8:ffff:1:9:9:9:9").status_code == 429
    assert post(guarded, 1, "2001:db8:ffff:2::").status_code == 200


def test_the_address_is_what_the_last_trusted_proxy_saw(guarded: Cluster) -> None:
    """The client may itself have written the addresses further to the left."""
    for forged in ("203.0.113.1", "203.0.113.2", "203.0.113.3", "203.0.113.4"):
        answer = post(guarded, 0, f"{forged}, 203.0.113.99, 10.0.0.7")
    assert answer.status_code == 429


def test_an_address_that_guesses_secrets_too_often_is_refused(guarded: Cluster) -> None:
    answers = [post(guarded, node % 2, "192.0.2.50", "a-guess").status_code for node in range(7)]
    assert answers == [401] * 5 + [429] * 2
    assert post(guarded, 0, "192.0.2.50").status_code == 429  # although this secret is right
    assert post(guarded, 0, "192.0.2.51").status_code == 200


def test_wrong_tokens_are_limited_and_right_ones_are_always_accepted(guarded: Cluster) -> None:
    token = post(guarded, 0, "192.0.2.60").text.strip()
    headers = {"x-forwarded-for": "192.0.2.61"}
    wrong = [httpx.get(guarded.url(n % 2, "B" * 30), headers=headers).status_code for n in range(7)]
    assert wrong == [401] * 5 + [429] * 2
    assert httpx.get(guarded.url(0, token), headers=headers).status_code == 200


def test_a_client_that_is_no_trusted_proxy_cannot_forge_its_address() -> None:
    node = NodeProcess("alone", settings={"token_rate": "3/hour"})
    cluster = Cluster([node], None, "relay")
    answers = [post(cluster, 0, f"203.0.113.{n}", None).status_code for n in range(4)]
    cluster.stop()
    assert answers == [200, 200, 200, 429]
    assert "RELAY_TOKEN_SECRET is not set" in cluster.logs()


def test_an_empty_rate_means_no_limit() -> None:
    cluster = Cluster([NodeProcess("alone", settings={"token_rate": "", "failure_rate": ""})], None, "relay")
    answers = {post(cluster, 0, "", None).status_code for _ in range(50)}
    cluster.stop()
    assert answers == {200}
