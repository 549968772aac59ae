"""`relay check` and the watch over maxmemory-policy, on every version found."""

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from relay.metrics import Metrics
from relay.operations.check import Checked, check
from relay.operations.eviction import Eviction
from relay.settings import Settings
from relay.store.store import Store
from tests.store.test_urls import acl_user
from tests.support.redis import RedisServer, servers


@pytest.fixture(scope="module", params=sorted(servers()), ids=lambda version: ".".join(map(str, version)))
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    with RedisServer(servers()[request.param]) as server:
        yield server


async def said(server: RedisServer, prefix: str, user: str = "") -> list[str]:
    """Return the lines of a check; the last one says what is wrong, if something is."""
    url = f"redis://{user}127.0.0.1:{server.port}"
    store = Store.connect(Settings(redis_url=url, prefix=prefix, redis_patience=0.3))
    lines: list[str] = []
    try:
        await check(store, lines.append)
    except Checked as wrong:
        lines.append(f"wrong: {wrong}")
    finally:
        await store.aclose()
    return lines


async def test_all_is_well(server: RedisServer, prefix: str) -> None:
    lines = await said(server, prefix)
    assert lines[0].startswith("writes: yes; round trip: ")
    assert lines[1:] == ["commands: all that a node needs", lines[2], "maxmemory-policy: noeviction"]
    assert lines[2].startswith(("version: Redis ", "version: Valkey "))


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-lru", "volatile-ttl"])
async def test_a_policy_that_evicts(
    server: RedisServer, prefix: str, policy: str, caplog: pytest.LogCaptureFixture
) -> None:
    store, metrics = Store.connect(Settings(redis_url=server.url)), Metrics()
    eviction = Eviction(store, metrics)
    with server.client() as client, caplog.at_level(logging.WARNING, "relay.store"):
        client.config_set("maxmemory-policy", policy)
        try:
            assert (await said(server, prefix))[-1].startswith(
                f"wrong: maxmemory-policy: {policy}: when memory is full"
            )
            await eviction.look()
            await eviction.look()
        finally:
            client.config_set("maxmemory-policy", "noeviction")
        (line,) = caplog.messages
        assert f"maxmemory-policy {policy}" in line
        assert metrics.registry.get_sample_value("relay_redis_evicts") == 1
        await eviction.look()
        assert metrics.registry.get_sample_value("relay_redis_evicts") == 0
    await store.aclose()


@pytest.mark.parametrize(
    ("without", "what"),
    [
        ("-xadd", "write"),
        ("-exists", "EXISTS"),
        ("-zadd", "heartbeat"),
        ("-incrby", ""),
        ("-multi", "write chunks"),
        ("-xtrim", "acknowledge"),
        ("-rename", "revoke"),
        ("-info", ""),
    ],
)
async def test_a_user_with_too_few_rights(server: RedisServer, prefix: str, without: str, what: str) -> None:
    with server.client() as client:
        run: Any = client.execute_command
        run("ACL", "SETUSER", "relay", "reset", *acl_user(prefix)[2:], without)
    lines = await said(server, prefix, "relay:secret@")
    if what:
        assert lines[-1].startswith(f"wrong: {what}: NOPERM "), lines
        assert lines[-1].endswith("deploy/README.md, section Security")
    else:
        assert not lines[-1].startswith("wrong"), lines
