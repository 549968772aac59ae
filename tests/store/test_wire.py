"""The connection that all short commands share, and the connections that serve one caller at a time."""

import asyncio
import os
from collections.abc import AsyncIterator

import pytest
import redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from relay.settings import Settings
from relay.store.connections import Connections
from relay.store.redis_py import RedisPy
from tests.support.redis import RedisServer
from tests.support.wait import wait_until


@pytest.fixture
async def wires(redis_server: RedisServer, prefix: str) -> AsyncIterator[Connections]:
    redis_py = RedisPy.connect(Settings(redis_url=redis_server.url, node=prefix))
    wires = Connections(redis_py)
    yield wires
    wires.close_idle()
    await redis_py.aclose()


def connections(server: RedisServer, prefix: str) -> list[dict[str, str]]:
    with server.client() as client:
        return [each for each in client.client_list() if each["name"] == prefix]


async def test_commands_at_the_same_time_share_a_connection(
    wires: Connections, redis_server: RedisServer, prefix: str
) -> None:
    answers = await asyncio.gather(*(wires.share("k", [("ECHO", f"{number}")]) for number in range(500)))
    assert answers == [[b"%d" % number] for number in range(500)]
    assert len(connections(redis_server, prefix)) == 1


async def test_a_cancelled_call_takes_no_other_calls_reply(wires: Connections) -> None:
    await wires.share("k", [("PING",)])
    calls = [asyncio.create_task(wires.share("k", [("ECHO", f"{number}")])) for number in range(10)]
    await asyncio.sleep(0)
    for call in calls[::2]:
        call.cancel()
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert answers[1::2] == [[b"%d" % number] for number in range(1, 10, 2)]
    assert await wires.share("k", [("ECHO", "after")]) == [b"after"]


async def test_an_error_is_the_reply_of_its_own_command(wires: Connections) -> None:
    first, error, last = await wires.share("k", [("ECHO", "a"), ("NONSENSE",), ("ECHO", "b")])
    assert (first, last) == (b"a", b"b")
    assert isinstance(error, ResponseError)


async def test_a_blocking_command_holds_up_no_other(wires: Connections, prefix: str) -> None:
    wait = ("XREAD", "BLOCK", 20_000, "STREAMS", f"{prefix}:s", "$")
    blocked = asyncio.create_task(wires.call("k", [wait]))
    await asyncio.sleep(0.05)
    async with asyncio.timeout(10):
        await wires.share("k", [("XADD", f"{prefix}:s", "1-0", "d", "x")])
        assert await blocked == [[[f"{prefix}:s".encode(), [[b"1-0", [b"d", b"x"]]]]]]
    await wires.share("k", [("DEL", f"{prefix}:s")])


async def test_a_connection_whose_blocking_command_was_cancelled_is_not_reused(
    wires: Connections, redis_server: RedisServer, prefix: str
) -> None:
    blocked = asyncio.create_task(wires.call("k", [("XREAD", "BLOCK", 20_000, "STREAMS", f"{prefix}:s", "$")]))
    await asyncio.to_thread(wait_until, lambda: connections(redis_server, prefix), "the connection")
    await asyncio.sleep(0.05)
    blocked.cancel()
    await asyncio.wait([blocked])
    async with asyncio.timeout(10):
        assert await wires.call("k", [("ECHO", "x")]) == [b"x"]


@pytest.mark.parametrize("sizes", [[1], [8191, 8192, 8193], [16_384, 16_385], [261_632] * 4, [3_000_000, 1, 700_000]])
async def test_replies_of_any_size_come_whole(wires: Connections, prefix: str, sizes: list[int]) -> None:
    values = [os.urandom(size) for size in sizes]
    keys = [f"{prefix}:{number}" for number in range(len(sizes))]
    for key, value in zip(keys, values, strict=True):
        await wires.call("k", [("SET", key, value, "EX", 60)])
    for ask in (wires.call, wires.share, wires.call):
        got = await ask("k", [("GET", key) for key in keys])
        assert [bytes(value) for value in got] == values
    await wires.share("k", [("DEL", *keys)])


async def test_a_reply_stays_intact_when_later_ones_are_received(wires: Connections, prefix: str) -> None:
    """The reply is a slice of the block into which it was received."""
    for letter in (b"a", b"b"):
        await wires.call("k", [("SET", f"{prefix}:{letter.decode()}", letter * 200_000, "EX", 60)])
    (first,) = await wires.call("k", [("GET", f"{prefix}:a")])
    for _ in range(5):
        await wires.call("k", [("GET", f"{prefix}:b")])
    assert bytes(first) == b"a" * 200_000
    await wires.share("k", [("DEL", f"{prefix}:a", f"{prefix}:b")])


async def test_a_cut_connection_fails_all_waiting_commands_and_is_replaced(
    wires: Connections, redis_server: RedisServer, prefix: str
) -> None:
    await wires.share("k", [("PING",)])
    waiting = [asyncio.create_task(wires.share("k", [("BLPOP", f"{prefix}:none", 20)])) for _ in range(3)]
    await asyncio.sleep(0.05)
    with redis.Redis(port=redis_server.port) as other:
        for connection in connections(redis_server, prefix):
            other.client_kill_filter(_id=connection["id"])
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(answer) for answer in answers} == {RedisConnectionError}
    assert await wires.share("k", [("ECHO", "x")]) == [b"x"]
