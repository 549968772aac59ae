"""What `relay/store/redis_py.py` relies on that redis-py, fakeredis and hiredis do not document, or may change.

If one of these fails after an upgrade, change that module, or keep the older release. Each message says what would
break.
"""

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import fakeredis
import hiredis
import pytest
from redis import exceptions
from redis._parsers.base import _AsyncRESPBase
from redis.asyncio import Redis, RedisCluster, Sentinel
from redis.asyncio.connection import AbstractConnection

from relay.settings import Settings
from relay.store.failures import failure_of
from relay.store.redis_py import Link, RedisPy, Server
from relay.store.resp import Command, error, pack
from tests.support.ports import free_port
from tests.support.redis import RedisServer, cluster_of_two, newest
from tests.support.wait import wait_until

NAME = "contract"


@pytest.fixture
async def real(redis_server: RedisServer) -> AsyncIterator[RedisPy]:
    redis_py = RedisPy.connect(Settings(redis_url=redis_server.url, node=NAME))
    yield redis_py
    await redis_py.aclose()


@pytest.fixture
async def fake() -> AsyncIterator[RedisPy]:
    redis_py = RedisPy.embedded(fakeredis.FakeServer())
    yield redis_py
    await redis_py.aclose()


@pytest.fixture(params=["real", "fake"])
def redis_py(request: pytest.FixtureRequest) -> RedisPy:
    found: RedisPy = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def cluster_nodes() -> Iterator[list[RedisServer]]:
    with cluster_of_two(newest("what is private in redis-py's cluster was not tested")) as nodes:
        yield nodes


@pytest.fixture
async def cluster(cluster_nodes: list[RedisServer]) -> AsyncIterator[RedisCluster]:
    redis_py = RedisPy.connect(Settings(redis_url=f"redis+cluster://127.0.0.1:{cluster_nodes[0].port}", node=NAME))
    assert isinstance(redis_py.redis, RedisCluster)
    yield redis_py.redis
    await redis_py.aclose()


async def connection_of(redis_py: RedisPy) -> Any:
    """Return one of redis-py's connections, made as `Server.connect` makes it."""
    assert isinstance(redis_py.redis, Redis), "a cluster would be asked for a pool, which it does not have"
    pool = redis_py.redis.connection_pool
    connection = pool.connection_class(**pool.connection_kwargs | {"protocol": 2})
    assert isinstance(connection, AbstractConnection)
    assert connection._reader is None, "`_reader` and `_writer` would not tell whether redis-py is connected"
    assert connection._writer is None
    await connection.connect()  # type: ignore[no-untyped-call]
    return connection


class Received(asyncio.BufferedProtocol):
    """Keeps what arrives."""

    def __init__(self) -> None:
        self.data = b""
        self._block = bytearray(65_536)

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._block

    def buffer_updated(self, nbytes: int) -> None:
        self.data += self._block[:nbytes]

    async def wait_for(self, data: bytes) -> None:
        async with asyncio.timeout(10):
            while not self.data.endswith(data):
                await asyncio.sleep(0.001)


def packed(*commands: Command) -> bytes:
    return b"".join(pack(commands))


# Connections of a pool: `connection_class`, `connection_kwargs`, `connect`, `_writer`, `_reader`.


async def test_a_pool_tells_how_to_make_a_connection_that_it_does_not_keep(redis_py: RedisPy) -> None:
    connection = await connection_of(redis_py)
    await redis_py.close_idle()
    await redis_py.aclose()
    assert connection.is_connected, "the pool would close connections that are ours"
    await connection.disconnect()


async def test_a_connection_has_a_stream_writer_with_a_transport(real: RedisPy) -> None:
    connection = await connection_of(real)
    assert isinstance(connection._writer, asyncio.StreamWriter), "there would be no socket to take over"
    assert isinstance(connection._writer.transport, asyncio.Transport), "replies could not be received into our blocks"
    assert isinstance(connection._reader, asyncio.StreamReader), "redis-py would still think that it is connected"
    await connection.disconnect()


async def test_connect_logs_in_sets_the_name_and_reads_all_replies_to_that(real: RedisPy) -> None:
    link = await (await real.locate("any")).connect()
    assert link.transport is not None
    received = Received()
    link.hand_over(link.transport, received)
    link.transport.write(packed(("CLIENT", "GETNAME"), ("ECHO", "end")))
    await received.wait_for(b"$3\r\nend\r\n")
    assert received.data == b"$8\r\ncontract\r\n$3\r\nend\r\n", (
        "replies to redis-py's own commands would be taken for replies to ours, or operators would see no name"
    )
    link.transport.abort()


async def test_the_option_protocol_selects_resp2(real: RedisPy) -> None:
    link = await (await real.locate("any")).connect()
    assert link.transport is not None
    received = Received()
    link.hand_over(link.transport, received)
    link.transport.write(packed(("CONFIG", "GET", "port"), ("ECHO", "end")))
    await received.wait_for(b"$3\r\nend\r\n")
    assert received.data.startswith(b"*2\r\n$4\r\nport\r\n"), "replies would be RESP3, which `resp` does not parse"
    link.transport.abort()


async def test_a_connection_that_was_handed_over_is_left_alone(real: RedisPy) -> None:
    connection = await connection_of(real)
    writer = connection._writer
    received = Received()
    writer.transport.pause_reading()
    writer.transport.set_protocol(received)
    writer.transport.resume_reading()
    connection._reader = connection._writer = None
    assert not connection.is_connected, "redis-py would go on to use the socket, besides us"
    del connection
    gc.collect()
    await asyncio.sleep(0)
    assert not writer.transport.is_closing(), "redis-py would close the socket with its own object"
    writer.transport.write(packed(("PING",)))
    await received.wait_for(b"+PONG\r\n")
    assert received.data == b"+PONG\r\n"
    writer.transport.abort()


async def test_a_server_that_is_not_there_is_reported_once_and_at_once() -> None:
    redis_py = RedisPy.connect(Settings(redis_url=f"redis://127.0.0.1:{free_port()}"))
    server = await redis_py.locate("any")
    async with asyncio.timeout(1):  # redis-py's own retries would take longer, and the patience would not be kept
        with pytest.raises((exceptions.ConnectionError, OSError)):
            await server.connect()
        with pytest.raises((exceptions.ConnectionError, OSError)):
            await redis_py.redis.exists("any")
    await redis_py.aclose()


async def test_a_pool_closes_its_idle_connections_and_no_others(real: RedisPy, redis_server: RedisServer) -> None:
    assert isinstance(real.redis, Redis)

    def connections() -> int:
        with redis_server.client() as client:
            return sum(each["name"] == NAME for each in client.client_list())

    async def block() -> Any:
        return await real.redis.execute_command("BLPOP", "contract:none", 20)

    blocked = asyncio.create_task(block())
    await asyncio.gather(*(real.redis.ping() for _ in range(3)))
    await asyncio.to_thread(wait_until, lambda: connections() >= 3, "the connections")
    await real.redis.connection_pool.disconnect(inuse_connections=False)
    await asyncio.to_thread(wait_until, lambda: connections() == 1, "the idle ones to be closed: files would stay open")
    assert not blocked.done(), "a command that is under way would be cut off"
    blocked.cancel()
    await asyncio.wait([blocked])


# fakeredis: connections without a socket.


async def test_fakeredis_is_a_redis_whose_connections_have_no_socket(fake: RedisPy) -> None:
    assert isinstance(fake.redis, Redis), "it would be taken for a cluster"
    assert Link(await connection_of(fake)).transport is None, "its connections would be taken for sockets"


async def test_fakeredis_takes_packed_commands_and_replies_in_order(fake: RedisPy) -> None:
    connection = await connection_of(fake)
    await connection.send_packed_command([packed(("SET", "a", 1), ("GET", "a"), ("INCR", "a"))])
    replies = [await connection.read_response() for _ in range(3)]
    assert replies == [b"OK", b"1", 2], "without a socket, commands go through these two methods"


async def test_fakeredis_shares_a_server_and_wakes_a_blocked_reader(fake: RedisPy) -> None:
    server = await fake.locate("any")
    one, two = await server.connect(), await server.connect()
    wait = packed(("XREAD", "BLOCK", 20_000, "STREAMS", "s", "$"))
    blocked = asyncio.create_task(one.exchange(wait, 1))
    await asyncio.sleep(0.01)
    await two.exchange(packed(("XADD", "s", "1-0", "d", "x")), 1)
    async with asyncio.timeout(10):
        assert await blocked == [[[b"s", [[b"1-0", [b"d", b"x"]]]]]], "an embedded relay would pass no bytes"


async def test_fakeredis_raises_an_error_reply_as_redis_py_does(fake: RedisPy) -> None:
    link = await (await fake.locate("any")).connect()
    replies = await link.exchange(packed(("EVALSHA", "0" * 40, 0), ("NONSENSE",), ("ECHO", "end")), 3)
    assert isinstance(replies[0], exceptions.NoScriptError), "a script would never be loaded"
    assert isinstance(replies[1], exceptions.ResponseError)
    assert replies[2] == b"end", "replies would be off by one after an error"


# Sentinel.


async def test_sentinel_has_its_own_redis_objects_and_the_master_a_pool() -> None:
    sentinel: Any = Sentinel([("127.0.0.1", free_port())], socket_timeout=1)  # type: ignore[no-untyped-call]
    assert all(isinstance(each, Redis) for each in sentinel.sentinels), "their connections would never be closed"
    pool = sentinel.master_for("main").connection_pool
    connection = pool.connection_class(**pool.connection_kwargs | {"protocol": 2})
    with pytest.raises(exceptions.ConnectionError):  # it asks the sentinel, which is not there
        await connection.connect()
    for each in sentinel.sentinels:
        await each.aclose()


async def test_a_connection_by_sentinel_tells_where_it_leads_to(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    sentinel: Any = Sentinel([("127.0.0.1", free_port())], socket_timeout=1)  # type: ignore[no-untyped-call]
    pool = sentinel.master_for("main").connection_pool

    async def master(service: str) -> tuple[str, int]:
        return "127.0.0.1", redis_server.port

    monkeypatch.setattr(sentinel, "discover_master", master)
    link = await Server("", pool.connection_class, pool.connection_kwargs).connect()
    assert link.address == ("127.0.0.1", redis_server.port), "connections to a replaced master would be used"
    await link._connection.disconnect()
    for each in sentinel.sentinels:
        await each.aclose()


# Cluster: `initialize`, `get_node_from_key`, and a node's `name`, `connection_class` and `connection_kwargs`.


async def test_a_cluster_tells_which_node_has_a_key_and_how_to_connect_to_it(
    cluster: RedisCluster, cluster_nodes: list[RedisServer]
) -> None:
    await cluster.initialize()
    await cluster.initialize()  # it is called before each command, and must do nothing when it is done
    names = set()
    for key, server in (("a", cluster_nodes[1]), ("b", cluster_nodes[0])):  # their slots are 15495 and 3300
        node: Any = cluster.get_node_from_key(key)
        names.add(node.name)
        connection = node.connection_class(**node.connection_kwargs | {"protocol": 2})
        await connection.connect()
        assert connection._writer.get_extra_info("peername")[1] == server.port, "commands would go to the wrong node"
        await connection.disconnect()
    assert len(names) == 2, "two nodes would share a connection"


async def test_the_nodes_manager_finds_a_slot_that_has_moved(
    cluster: RedisCluster, cluster_nodes: list[RedisServer]
) -> None:
    await cluster.initialize()
    before: Any = cluster.get_node_from_key("a")
    clients: list[Any] = [node.client() for node in cluster_nodes]
    new_owner = clients[0].execute_command("CLUSTER", "MYID")
    for client in clients:
        client.execute_command("CLUSTER", "SETSLOT", 15_495, "NODE", new_owner)
    await cluster.nodes_manager.initialize(last_failed_node_name=before.name)
    after: Any = cluster.get_node_from_key("a")
    assert (before.port, after.port) == (cluster_nodes[1].port, cluster_nodes[0].port), (
        "after a failover or a resharding, commands would go to the old node for ever"
    )
    for client in clients:
        client.close()


# Exceptions, and hiredis.


@pytest.mark.parametrize("word", ["WRONGPASS", "NOAUTH", "OOM", "READONLY", "LOADING", "NOPERM", "EXECABORT"])
def test_redis_py_keeps_the_word_that_it_cuts_off_an_error_reply(word: str) -> None:
    parser: Any = _AsyncRESPBase
    raised = parser.parse_error(f"{word} some words")
    assert failure_of(raised).word == word, "a failure would be taken for another one"


def test_an_error_reply_to_a_missing_script_has_an_exception() -> None:
    assert isinstance(error("NOSCRIPT x"), exceptions.NoScriptError)
    assert issubclass(exceptions.NoScriptError, exceptions.ResponseError), "it would be raised amid a call's replies"


def test_hiredis_packs_what_commands_are_made_of() -> None:
    pack_command: Callable[[Any], bytes] = hiredis.pack_command
    assert pack_command(("É", 12, b"k", memoryview(b"v"))) == (
        b"*4\r\n$2\r\n\xc3\x89\r\n$2\r\n12\r\n$1\r\nk\r\n$1\r\nv\r\n"
    ), "commands would have to be packed in Python"


def test_hiredis_returns_errors_and_tells_what_is_incomplete() -> None:
    reader = hiredis.Reader(replyError=error)
    reader.feed(b"-OOM x\r\n$4\r\nab")
    assert isinstance(reader.gets(), exceptions.ResponseError), "an error would be raised in the event loop"
    assert reader.gets() is False, "an incomplete reply would be taken for one"
    reader.feed(b"cd\r\n")
    assert reader.gets() == b"abcd"
