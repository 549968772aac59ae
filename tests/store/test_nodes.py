"""Heartbeats, the roll of nodes, inboxes, idle connections, and an unreachable Redis."""

import asyncio
import time

import psutil
import pytest
import redis

from relay.errors import StoreUnavailable
from relay.settings import Settings
from relay.store.store import Store
from tests.store.conftest import client
from tests.support.ports import free_port
from tests.support.redis import RedisServer


async def test_connections_that_broke_while_nobody_used_them_are_closed(store: Store, redis_url: str) -> None:
    if not redis_url:
        pytest.skip("fakeredis has no connections that could break")
    await asyncio.gather(*(client(store).ping() for _ in range(4)), store.nodes.check(node="here"))
    open_before = psutil.Process().num_fds()
    with redis.Redis.from_url(redis_url) as other:
        for connection in other.client_list():
            if connection["name"] == "here":
                other.client_kill_filter(_id=connection["id"])
    await store.commands.close_idle()
    async with asyncio.timeout(20):
        while psutil.Process().num_fds() > open_before - 5:
            await asyncio.sleep(0.01)
    await store.nodes.check(node="here")


async def test_a_crowd_holds_up_neither_heartbeats_nor_readiness(redis_server: RedisServer, prefix: str) -> None:
    """And a crowd that asks for readiness takes one connection."""
    settings = Settings(redis_url=redis_server.url, prefix=prefix, redis_commands=1, node="here")
    store = Store.connect(settings)
    try:
        await store.nodes.check(node="here")
        crowd = [asyncio.create_task(store.tokens.make(token=f"{number:022}")) for number in range(3_000)]
        await asyncio.sleep(0)
        descriptors = psutil.Process().num_fds()
        await asyncio.gather(*(store.nodes.check(node="here") for _ in range(500)))
        await store.nodes.beat(node="here", facts={"host": "x"})
        assert not all(task.done() for task in crowd)
        assert psutil.Process().num_fds() <= descriptors + 3
        await asyncio.gather(*crowd)
    finally:
        await store.aclose()


async def test_a_beat_returns_all_nodes_with_their_ages(store: Store) -> None:
    await store.nodes.beat(node="a", facts={"host": "x"})
    await asyncio.sleep(0.05)
    ages = await store.nodes.beat(node="b", facts={"host": "y"})
    assert set(ages) == {"a", "b"}
    assert 0.04 < ages["a"] < 5
    assert ages["b"] < ages["a"]
    assert await store.nodes.is_beating(node="a")
    assert await client(store).hgetall(store.keys.node("a")) == {b"host": b"x"}


async def test_a_node_beats_even_if_its_facts_cannot_be_written(store: Store) -> None:
    """In a Redis Cluster their server may be away, and the one with the list of nodes not."""
    await client(store).set(store.keys.node("a"), "no hash", px=10_000)
    assert set(await store.nodes.beat(node="a", facts={"host": "x"})) == {"a"}


async def test_a_node_that_signs_off_is_gone(store: Store) -> None:
    await store.nodes.beat(node="a", facts={"host": "x"})
    await store.nodes.wake(node="a", about="x")
    await store.nodes.sign_off(node="a")
    assert not await store.nodes.is_beating(node="a")
    assert set(await store.nodes.beat(node="b", facts={"host": "y"})) == {"b"}
    assert not await client(store).exists(store.keys.inbox("a"))


async def test_wake_ups_arrive_once_and_in_order(store: Store) -> None:
    reading = asyncio.create_task(store.nodes.inbox(node="a", after="0-0", timeout=30))
    await asyncio.sleep(0)
    await store.nodes.wake(node="a", about="1")
    after, topics = await asyncio.wait_for(reading, 10)
    assert topics == ["1"]
    await store.nodes.wake(node="a", about="2")
    await store.nodes.wake(node="a", about="3")
    after, topics = await store.nodes.inbox(node="a", after=after, timeout=1)
    assert topics == ["2", "3"]
    assert await store.nodes.inbox(node="a", after=after, timeout=0.02) == (after, [])
    assert await client(store).xlen(store.keys.inbox("a")) <= 1


async def test_an_unreachable_redis_raises_within_the_patience(prefix: str) -> None:
    store = Store.connect(
        Settings(redis_url=f"redis://127.0.0.1:{free_port()}", prefix=prefix, redis_patience=0.3, transfer_patience=0.6)
    )
    begun = time.monotonic()
    with pytest.raises(StoreUnavailable):
        await store.tokens.make(token="x" * 22)
    assert time.monotonic() - begun >= 0.1
    with pytest.raises(StoreUnavailable):
        await store.transfers.delete(store.transfers.identify(token="x" * 22, name="x").keys.chunks)
    assert time.monotonic() - begun >= 0.4
    await store.aclose()
