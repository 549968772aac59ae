"""Another server takes the place of a master while connections to the old one are open, as under Sentinel."""

import asyncio
from collections.abc import Iterator
from typing import cast

import pytest
from redis.asyncio.connection import Connection
from redis.exceptions import ConnectionError as RedisConnectionError

from relay.store.connections import Connections
from relay.store.redis_py import RedisPy, Server
from tests.support.redis import RedisServer, newest


class Sentinel:
    """Says which of two servers is the master: at first the old one."""

    only = None

    def __init__(self, old: RedisServer, new: RedisServer) -> None:
        self.old, self.new = old, new
        self.master = old

    async def locate(self, key: str) -> Server:
        return Server("", Connection, {"host": "127.0.0.1", "port": self.master.port})


@pytest.fixture
def sentinel() -> Iterator[Sentinel]:
    program = newest("the replacement of a master was not tested")
    with RedisServer(program) as old, RedisServer(program) as new:
        yield Sentinel(old, new)


@pytest.fixture
def connections(sentinel: Sentinel) -> Connections:
    return Connections(cast(RedisPy, sentinel))


async def leave_idle(connections: Connections) -> None:
    """Make three connections, which no call uses afterwards."""
    await asyncio.gather(*(connections.call("k", [("BLPOP", "none", "0.1")]) for _ in range(3)))


async def test_the_old_connections_are_not_used_any_more(sentinel: Sentinel, connections: Connections) -> None:
    await connections.share("k", [("PING",)])
    await leave_idle(connections)
    sentinel.master = sentinel.new
    # One more than are idle. If that one is the first to get its reply, those to the others are void.
    calls = (connections.call("k", [("PING",)]) for _ in range(4))
    await asyncio.gather(*calls, return_exceptions=True)
    with sentinel.new.client() as client:
        client.set("k", "new")
    assert await connections.share("k", [("GET", "k")]) == [b"new"]
    assert await connections.call("k", [("GET", "k")]) == [b"new"]
    connections.close_idle()


async def test_a_reply_of_the_old_one_is_void(sentinel: Sentinel, connections: Connections) -> None:
    """It was sent before, and carried out by a server that will throw it away."""
    writing = asyncio.create_task(connections.call("k", [("BLPOP", "k", "20")]))
    with sentinel.old.client() as client:
        while not client.info("clients")["blocked_clients"]:
            await asyncio.sleep(0.01)
        sentinel.master = sentinel.new
        await connections.call("k", [("PING",)])
        client.rpush("k", "v")
    with pytest.raises(RedisConnectionError):
        await writing
    connections.close_idle()


async def test_a_server_that_is_silent_once_is_not_tried_on_every_idle_connection(connections: Connections) -> None:
    await leave_idle(connections)
    connections.drop_silent(asyncio.get_running_loop().time() + 1)
    assert all(connection.is_lost for connection in connections._idle[""])
    await leave_idle(connections)
    connections.close_idle()
