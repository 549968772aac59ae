"""Connections to Redis: commands go out as they come, one behind the other, and replies come back in that order.

redis-py makes them, for it knows about TLS, users, Sentinel and Cluster.  Then the socket is ours: what arrives goes
from the kernel into the block of which the replies' strings are slices, and nothing is copied after that.  With
redis-py's reader and hiredis the bytes of a transfer were copied four times; and its connection pool, which lends a
connection for one command at a time, was most of what a small transfer cost.
"""

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self, cast

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError, ResponseError

from relay.buffers import BATCH, CHUNK, Blocks, Bytes
from relay.store.redis_py import PASSING, Client
from relay.store.resp import Command, IncompleteError, MovedElsewhereError, pack, parse, reader

#: Bytes of the block for replies: where they are small, and where a whole read's have to fit.
_BLOCK_SMALL, _BLOCK = 8 * 1024, BATCH * (CHUNK + 64) + 8 * 1024
#: Bytes that come after a string, at least where it is a chunk of several.
_AFTER = 64
_NONE = memoryview(b"")
_CLOSED = "Redis has closed the connection"


@dataclass(slots=True)
class _Expected:
    """The replies to the commands of one call."""

    count: int
    all: "asyncio.Future[list[Any]]"
    replies: list[Any] = field(default_factory=list)


class _Replies(asyncio.BufferedProtocol):
    """Puts replies together, for who expects them in the order in which they asked."""

    def __init__(self, blocks: Blocks) -> None:
        self.is_lost = False
        self._loop = asyncio.get_running_loop()
        #: When it has heard from Redis last, in the event loop's seconds.
        self.heard = self._loop.time()
        self._expected: deque[_Expected] = deque()
        #: Whether what comes next may be large.  What is not, hiredis puts together.
        self._is_large = False
        self._reader = reader()
        self._small = memoryview(bytearray(_BLOCK_SMALL))
        self._blocks = blocks
        #: What is received into, filled up to offset `_filled`; the next reply begins at `_parsed`, and cannot be
        #: whole before the block is filled up to `_need`.
        self._block = _NONE
        self._filled = self._parsed = self._need = 0
        self._were_large = False

    def expect(self, count: int, *, large: bool) -> "asyncio.Future[list[Any]]":
        """So many replies, when they have come.  Raises redis's ConnectionError, as the future may.

        `large`: whether they may be, which is known only where nobody else expects any.
        """
        if self.is_lost:
            raise RedisConnectionError(_CLOSED)
        expected = _Expected(count, self._loop.create_future())
        self._expected.append(expected)
        self._is_large = large
        return expected.all

    def get_buffer(self, sizehint: int) -> memoryview:
        if not self._is_large:
            return self._small
        if max(self._need, self._filled + 1) > len(self._block):
            self._renew()
        return self._block[self._filled :]

    def _renew(self) -> None:
        """Takes a block with room for the reply that is incomplete.  Who has a slice of the last one may keep it."""
        begun = self._block[self._parsed : self._filled]
        need = max(self._need - self._parsed, len(begun) + 1)
        if need + _AFTER > _BLOCK:
            block = memoryview(bytearray(need + _AFTER))
        elif need > _BLOCK_SMALL or self._were_large:
            block = self._blocks.get()
        else:
            block = memoryview(bytearray(_BLOCK_SMALL))
        block[: len(begun)] = begun
        self._block, self._need = block, need
        self._parsed, self._filled = 0, len(begun)

    def buffer_updated(self, nbytes: int) -> None:
        self.heard = self._loop.time()
        if self._is_large:
            self._filled += nbytes
            if self._filled >= self._need:
                self._parse()
            return
        self._reader.feed(bytes(self._small[:nbytes]))
        while (reply := self._reader.gets()) is not False:
            self._hand_out(reply)

    def _parse(self) -> None:
        try:
            while self._parsed < self._filled:
                block = cast(bytearray, self._block.obj)
                reply, self._parsed = parse(block, self._parsed, self._filled)
                self._hand_out(reply)
        except IncompleteError as error:
            self._need = error.need
        else:
            self._were_large = self._filled > _BLOCK_SMALL
            self._block = _NONE
            self._filled = self._parsed = self._need = 0

    def _hand_out(self, reply: Any) -> None:
        if not self._expected:
            self.is_lost = True  # it says something that nobody asked for: it is about to close
            return
        expected = self._expected[0]
        expected.replies.append(reply)
        if len(expected.replies) == expected.count:
            self._expected.popleft()
            if not expected.all.done():
                expected.all.set_result(expected.replies)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
        while self._expected:
            expected = self._expected.popleft()
            if not expected.all.done():
                expected.all.set_exception(RedisConnectionError(_CLOSED))


class RedisConnection:
    """One connection."""

    def __init__(self, connection: AbstractConnection, blocks: Blocks) -> None:
        self._connection = connection
        #: Those to fakeredis have no socket.
        self._transport: asyncio.Transport | None = getattr(connection._writer, "transport", None)
        self._loop = asyncio.get_running_loop()
        self._replies = _Replies(blocks)
        self._pieces: list[Bytes] = []
        self._turn = asyncio.Lock()
        if self._transport is not None:
            # Kept, or it would complain when it is collected; redis-py shall think that it has none.
            self._writer = connection._writer
            connection._reader = connection._writer = None
            self._transport.pause_reading()  # or uvloop would go on to read as for the protocol before
            self._transport.set_protocol(self._replies)
            self._transport.resume_reading()

    @classmethod
    async def connect(cls, connection: AbstractConnection, blocks: Blocks) -> Self:
        """Raises what redis-py does."""
        await connection.connect()  # type: ignore[no-untyped-call]
        return cls(connection, blocks)

    @property
    def is_lost(self) -> bool:
        return self._replies.is_lost

    @property
    def heard(self) -> float:
        """When Redis has last said something over it, in the event loop's seconds."""
        return self._replies.heard

    async def call(self, commands: Sequence[Command], *, large: bool = False) -> list[Any]:
        """Sends commands and waits for their replies, which may be `large`; those that are errors are not raised.

        Who gives up waiting leaves the connection as good as it was, but for those behind it: Redis answers in order.
        Raises redis's ConnectionError.
        """
        if self._transport is None:
            return await self._call_fake(commands)
        pieces = pack(commands)  # first, as it may raise
        replies = self._replies.expect(len(commands), large=large)
        if not self._pieces:  # what else is called in this round of the event loop goes out with it
            self._loop.call_soon(self._flush)
        self._pieces += pieces
        return await replies

    def _flush(self) -> None:
        pieces, self._pieces = self._pieces, []
        if self._transport is not None and not self.is_lost:
            self._transport.writelines(pieces)

    async def _call_fake(self, commands: Sequence[Command]) -> list[Any]:
        async with self._turn:
            if self.is_lost:
                raise RedisConnectionError(_CLOSED)
            try:
                await self._connection.send_packed_command([b"".join(pack(commands))])
                return [await self._fake_reply() for _ in commands]
            except BaseException:
                self.close()  # the reply may be yet to come
                raise

    async def _fake_reply(self) -> Any:
        try:
            return await self._connection.read_response()
        except ResponseError as error:
            return error

    def close(self) -> None:
        self._replies.is_lost = True
        if self._transport is not None:
            self._transport.abort()


class Connections:
    """The connections of one client: one that all calls share, and as many more as are used alone at the same time."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._is_cluster = isinstance(client, RedisCluster)  # once: it is slow to ask, these classes are protocols
        self._blocks = Blocks(_BLOCK)
        #: By the Redis that they are to: the shared one, and those that nobody uses just now.
        self._shared: dict[str, RedisConnection] = {}
        self._idle: defaultdict[str, list[RedisConnection]] = defaultdict(list)
        self._connecting = asyncio.Lock()

    async def share(self, key: str, commands: Sequence[Command]) -> list[Any]:
        """Sends commands about one key which do not block, and waits for their replies; errors are not raised.

        Raises what redis-py does when it connects, and its ConnectionError.
        """
        place, make = await self._place(key)
        connection = self._shared.get(place)
        if connection is None or connection.is_lost:
            connection = await self._connect_shared(key, place, make)
        replies = await connection.call(commands)
        await self._check(key, connection, replies)
        return replies

    async def _connect_shared(self, key: str, place: str, make: Callable[[], AbstractConnection]) -> RedisConnection:
        async with self._connecting:
            connection = self._shared.get(place)
            if connection is None or connection.is_lost:
                connection = self._shared[place] = await self._connect(key, make)
            return connection

    def drop_silent(self, since: float) -> None:
        """Closes a shared connection over which nothing has come since then, in the event loop's seconds."""
        for connection in self._shared.values():
            if connection.heard < since:
                connection.close()

    async def call(self, key: str, commands: Sequence[Command], *, large: bool = False) -> list[Any]:
        """Sends commands about one key, by a connection that nobody else uses meanwhile, and waits for their replies.

        So they may block, or be large, or have replies that are.  Those that are errors are not raised.  Raises as
        `share` does.
        """
        place, make = await self._place(key)
        connection = self._idle_at(place) or await self._connect(key, make)
        try:
            replies = await connection.call(commands, large=large)
        except BaseException:
            connection.close()  # the reply may be yet to come
            raise
        await self._check(key, connection, replies)
        if not connection.is_lost:
            self._idle[place].append(connection)
        return replies

    async def _check(self, key: str, connection: RedisConnection, replies: Sequence[Any]) -> None:
        """Closes a connection whose errors may pass with it, as where a master is none any more."""
        errors = [reply for reply in replies if isinstance(reply, Exception)]
        if any(isinstance(error, PASSING) and not isinstance(error, OutOfMemoryError) for error in errors):
            connection.close()
        if any(isinstance(error, MovedElsewhereError) for error in errors):
            await self._find_again(key)

    def close_idle(self) -> None:
        """Closes the connections that nobody uses just now, and the shared one."""
        for connections in (self._shared.values(), *self._idle.values()):
            for connection in connections:
                connection.close()
        self._shared.clear()
        self._idle.clear()

    def _idle_at(self, place: str) -> RedisConnection | None:
        connections = self._idle[place]
        while connections:
            if not (connection := connections.pop()).is_lost:
                return connection
            connection.close()
        return None

    async def _connect(self, key: str, make: Callable[[], AbstractConnection]) -> RedisConnection:
        try:
            return await RedisConnection.connect(make(), self._blocks)
        except (RedisConnectionError, OSError):
            await self._find_again(key)
            raise

    async def _place(self, key: str) -> tuple[str, Callable[[], AbstractConnection]]:
        """Where the key is, and what makes a connection to there."""
        if self._is_cluster:
            cluster = cast(RedisCluster, self._client)
            await cluster.initialize()
            node = cast(Any, cluster.get_node_from_key(key))
            return node.name, lambda: node.connection_class(**node.connection_kwargs | {"protocol": 2})
        pool = cast(Redis, self._client).connection_pool
        return "", lambda: pool.connection_class(**pool.connection_kwargs | {"protocol": 2})

    async def _find_again(self, key: str) -> None:
        """Lets redis-py find out where in a Redis Cluster the key is by now, as it does with commands of its own."""
        if self._is_cluster:
            await self._client.exists(key)
