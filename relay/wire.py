"""Connections to Redis for the bytes of transfers.

redis-py makes them, as it makes all others: it knows about TLS, users, Sentinel and Cluster.  Then the socket is ours:
what arrives goes from the kernel into the block of which the reply's strings are slices, and nothing is copied after
that.  With redis-py's reader and hiredis it was copied four times, and took twice the processor's time.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, Self, cast

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError, ResponseError

from relay.clients import PASSING, Client
from relay.flow import BATCH, CHUNK, Blocks
from relay.resp import Command, IncompleteError, MovedElsewhereError, pack, parse

#: Bytes of the block for replies: at first, and where they are more than that, so that a whole read's fit.
_BLOCK_FIRST, _BLOCK = 8 * 1024, BATCH * (CHUNK + 64) + 8 * 1024
#: Bytes that come after a string, at least where it is a chunk of several.
_AFTER = 64
_CLOSED = "Redis has closed the connection"


class _Replies(asyncio.BufferedProtocol):
    """Puts replies together."""

    def __init__(self, blocks: Blocks) -> None:
        self.is_lost = False
        self._blocks = blocks
        self._block = memoryview(b"")
        self._filled = self._parsed = self._need = 0
        self._replies: list[Any] = []
        self._count = 0
        self._all: asyncio.Future[list[Any]] | None = None
        self._were_large = False

    def next(self, count: int) -> "asyncio.Future[list[Any]]":
        """So many replies, when they have come.  Raises redis's ConnectionError, as the future may."""
        if self.is_lost:
            raise RedisConnectionError(_CLOSED)
        self._replies, self._count = [], count
        self._block = memoryview(b"")  # who has a slice of the last one may keep it
        self._filled = self._parsed = self._need = 0
        self._all = asyncio.get_running_loop().create_future()
        return self._all

    def get_buffer(self, sizehint: int) -> memoryview:
        if len(self._block) < max(self._need, self._filled + 1):
            block = self._larger()
            block[: self._filled] = self._block[: self._filled]
            self._block = block
        return self._block[self._filled :]

    def _larger(self) -> memoryview:
        if self._need + _AFTER > _BLOCK:
            return memoryview(bytearray(self._need + _AFTER))
        is_large = self._were_large or self._need > _BLOCK_FIRST
        return self._blocks.get() if is_large else memoryview(bytearray(_BLOCK_FIRST))

    def buffer_updated(self, nbytes: int) -> None:
        self._filled += nbytes
        if self._all is None or self._all.done():
            self.is_lost = True  # it says something that nobody asked for: it is about to close
            return
        if self._filled < self._need:
            return
        try:
            while len(self._replies) < self._count:
                reply, self._parsed = parse(cast(bytearray, self._block.obj), self._parsed, self._filled)
                self._replies.append(reply)
        except IncompleteError as error:
            self._need = error.need
        else:
            self._were_large = self._filled > _BLOCK_FIRST
            self._all.set_result(self._replies)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
        if self._all is not None and not self._all.done():
            self._all.set_exception(RedisConnectionError(_CLOSED))


class Wire:
    """One connection; for one at a time."""

    def __init__(self, connection: AbstractConnection, blocks: Blocks) -> None:
        self._connection = connection
        #: Those to fakeredis, in tests, have no socket.
        self._transport: asyncio.Transport | None = getattr(connection._writer, "transport", None)
        self._replies = _Replies(blocks)
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

    async def call(self, commands: Sequence[Command]) -> list[Any]:
        """Sends commands and waits for their replies; those that are errors are not raised.

        Raises redis's ConnectionError.  After any exception it cannot be used again.
        """
        pieces = pack(commands)
        if self._transport is None:
            await self._connection.send_packed_command([b"".join(pieces)])
            return [await self._reply_of_fake() for _ in commands]
        replies = self._replies.next(len(commands))
        self._transport.writelines(pieces)
        return await replies

    async def _reply_of_fake(self) -> Any:
        try:
            return await self._connection.read_response()
        except ResponseError as error:
            return error

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()


class Wires:
    """The connections of one client; as many as are used at the same time."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._is_cluster = isinstance(client, RedisCluster)  # once: it is slow to ask, these classes are protocols
        self._blocks = Blocks(_BLOCK)
        #: Those that nobody uses just now, by the Redis they are to.
        self._idle: defaultdict[str, list[Wire]] = defaultdict(list)

    async def call(self, key: str, commands: Sequence[Command]) -> list[Any]:
        """Sends commands about one key and waits for their replies; those that are errors are not raised.

        Raises what redis-py does when it connects, and its ConnectionError.
        """
        try:
            place, make = await self._place(key)
            wire = self._idle_at(place) or await Wire.connect(make(), self._blocks)
            try:
                replies = await wire.call(commands)
            except BaseException:
                wire.close()  # the reply may be yet to come
                raise
        except (RedisConnectionError, OSError):
            await self._find_again(key)
            raise
        passing = [reply for reply in replies if isinstance(reply, PASSING) and not isinstance(reply, OutOfMemoryError)]
        if passing:  # a master that is none any more, for instance
            wire.close()
        else:
            self._idle[place].append(wire)
        if any(isinstance(reply, MovedElsewhereError) for reply in passing):
            await self._find_again(key)
        return replies

    def close_idle(self) -> None:
        """Closes the connections that nobody uses just now."""
        for wires in self._idle.values():
            for wire in wires:
                wire.close()
        self._idle.clear()

    def _idle_at(self, place: str) -> Wire | None:
        wires = self._idle[place]
        while wires:
            if not (wire := wires.pop()).is_lost:
                return wire
            wire.close()
        return None

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
