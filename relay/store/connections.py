"""Connections to Redis. Commands are sent without waiting for the replies to those before them, and Redis replies in
the same order.

redis-py opens the connections (see `redis_py`), and then their sockets are ours. The kernel writes what arrives into a
block, and the strings of the replies are slices of that block, so no byte is copied after that. With redis-py's own
reader and hiredis the bytes of a transfer were copied four times; and redis-py's connection pool, which lends a
connection to one command at a time, caused most of the cost of a small transfer.
"""

import asyncio
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Protocol, cast

from redis.exceptions import ConnectionError as RedisConnectionError

from relay.buffers import BATCH, CHUNK, Blocks, Bytes
from relay.store.failures import failure_of
from relay.store.redis_py import Link, RedisPy, Server
from relay.store.resp import Command, IncompleteError, pack, parse, reader

#: Bytes of a block for small replies.
_BLOCK_SMALL = 8 * 1024
#: Bytes of a block for large replies: all chunks of one read fit into it.
_BLOCK = BATCH * (CHUNK + 64) + 8 * 1024
#: Minimum bytes of a block that has to be made for one huge reply, in addition to that reply: what follows a chunk in a
#: reply of several.
_AFTER = 64
_NONE = memoryview(b"")
_CLOSED = "Redis has closed the connection"
_REPLACED = "Another server has taken the place of this one"


class Connection(Protocol):
    """One connection to Redis."""

    @property
    def is_lost(self) -> bool:
        """Whether no more commands can be sent through it."""

    @property
    def address(self) -> object:
        """Where it leads to."""

    @property
    def heard(self) -> float:
        """When Redis last sent something through it, in the event loop's seconds."""

    async def call(self, commands: Sequence[Command], *, large: bool = False) -> list[Any]:
        """Send commands and return their replies. A reply that is an error is not raised.

        `large`: the replies may be large. Nobody else may then be waiting for replies on this connection.
        Raise redis-py's ConnectionError.
        """

    def close(self) -> None:
        """Close it. Whoever waits for a reply gets a ConnectionError."""


@dataclass(slots=True)
class _Expected:
    """The replies to the commands of one call."""

    count: int
    all: "asyncio.Future[list[Any]]"
    replies: list[Any] = field(default_factory=list)


class _Replies(asyncio.BufferedProtocol):
    """Parses replies, and gives each to the call that is next in the order of the commands."""

    def __init__(self, blocks: Blocks) -> None:
        self.is_lost = False
        self._loop = asyncio.get_running_loop()
        #: When Redis last sent something, in the event loop's seconds.
        self.heard = self._loop.time()
        self._expected: deque[_Expected] = deque()
        #: Whether the next replies may be large. If not, hiredis parses them.
        self._is_large = False
        self._reader = reader()
        self._small = memoryview(bytearray(_BLOCK_SMALL))
        self._blocks = blocks
        #: The block to receive into. It is filled up to offset `_filled`. The next reply begins at `_parsed`, and is
        #: incomplete at least until the block is filled up to `_need`.
        self._block = _NONE
        self._filled = self._parsed = self._need = 0
        self._were_large = False

    def expect(self, count: int, *, large: bool) -> "asyncio.Future[list[Any]]":
        """Return a future of the next `count` replies. Raise redis-py's ConnectionError, as the future may."""
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
        """Take a block that has room for the incomplete reply. Slices of the old block stay valid."""
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
            self.is_lost = True  # Redis says something unasked only when it is about to close the connection
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


class SocketConnection:
    """A connection to a Redis server; see `Connection`.

    A call that is cancelled leaves the connection usable. But commands that are sent after it still wait for the reply
    to the cancelled one, because Redis replies in order.
    """

    def __init__(self, link: Link, transport: asyncio.Transport, blocks: Blocks) -> None:
        self._link = link
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._replies = _Replies(blocks)
        self._pieces: list[Bytes] = []
        link.hand_over(transport, self._replies)

    @property
    def is_lost(self) -> bool:
        return self._replies.is_lost

    @property
    def address(self) -> object:
        return self._link.address

    @property
    def heard(self) -> float:
        return self._replies.heard

    async def call(self, commands: Sequence[Command], *, large: bool = False) -> list[Any]:
        pieces = pack(commands)  # first, because it may raise
        replies = self._replies.expect(len(commands), large=large)
        if not self._pieces:  # all calls of this round of the event loop are sent together
            self._loop.call_soon(self._flush)
        self._pieces += pieces
        return await replies

    def _flush(self) -> None:
        pieces, self._pieces = self._pieces, []
        if not self.is_lost:
            self._transport.writelines(pieces)

    def close(self) -> None:
        self._replies.is_lost = True
        self._transport.abort()


class EmbeddedConnection:
    """A connection to fakeredis inside this process; see `Connection`. It carries out one call after the other."""

    def __init__(self, link: Link) -> None:
        self.is_lost = False
        self.address = link.address
        self.heard = asyncio.get_running_loop().time()
        self._link = link
        self._turn = asyncio.Lock()

    async def call(self, commands: Sequence[Command], *, large: bool = False) -> list[Any]:
        async with self._turn:
            if self.is_lost:
                raise RedisConnectionError(_CLOSED)
            try:
                return await self._link.exchange(b"".join(pack(commands)), len(commands))
            except BaseException:
                self.close()  # its reply may still come, and would be taken for that of the next call
                raise

    def close(self) -> None:
        self.is_lost = True


class Connections:
    """The connections of one process: one to each server that all calls share, and one for each call that needs a
    connection of its own."""

    def __init__(self, redis_py: RedisPy) -> None:
        self._redis_py = redis_py
        self._blocks = Blocks(_BLOCK)
        #: By server's name.
        self._shared: dict[str, Connection] = {}
        #: By server's name: the connections that no call uses now.
        self._idle: defaultdict[str, list[Connection]] = defaultdict(list)
        #: By server's name: where the newest connection leads to. Sentinel may replace a master while others are open.
        self._addresses: dict[str, object] = {}
        #: By server's name, so that a server that hangs does not hold up connections to the others.
        self._connecting: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        #: The servers that may no longer have their keys: they were silent, refused a connection, or said so.
        self._doubted: set[str] = set()

    async def share(self, key: str, commands: Sequence[Command]) -> list[Any]:
        """Send commands about one key over the shared connection, and return their replies. None may block.

        A reply that is an error is not raised. Raise what redis-py raises when it connects, and its ConnectionError.
        """
        server = await self._locate(key)
        connection = self._shared.get(server.name)
        if connection is None or not self._is_good(server, connection):
            connection = await self._connect_shared(server)
        replies = await connection.call(commands)
        self._check(server, connection, replies)
        return replies

    async def _locate(self, key: str) -> Server:
        """Return the server that has the key. If it is in doubt, ask the others first which of them has it now.

        A master of a Redis Cluster that hangs says nothing of the replica that has taken its place.
        """
        server = await self._redis_py.locate(key)
        if server.name in self._doubted:
            await self._redis_py.find_again(server.name)
            self._doubted.clear()
            server = await self._redis_py.locate(key)
        return server

    async def _connect_shared(self, server: Server) -> Connection:
        async with self._connecting[server.name]:
            connection = self._shared.get(server.name)
            if connection is None or not self._is_good(server, connection):
                connection = self._shared[server.name] = await self._connect(server)
            return connection

    def drop_silent(self, since: float) -> None:
        """Close the shared connections through which nothing has come since then, in the event loop's seconds.

        Their servers are in doubt from now on. So the idle connections are closed, too: a call that took one after the
        other would wait for each of them, and use up its patience.
        """
        for name, connection in self._shared.items():
            if connection.heard < since:
                self._doubted.add(name)
                connection.close()
        for connection in chain(*self._idle.values()):
            if connection.heard < since:
                connection.close()

    async def call(self, key: str, commands: Sequence[Command], *, large: bool = False) -> list[Any]:
        """Send commands about one key over a connection that no other call uses meanwhile, and return their replies.

        So the commands may block, and they and their replies may be large. Errors are as for `share`.
        """
        server = await self._locate(key)
        connection = self._idle_to(server) or await self._connect(server)
        try:
            replies = await connection.call(commands, large=large)
        except BaseException:
            connection.close()  # its reply may still come, and would be taken for that of the next call
            raise
        self._check(server, connection, replies)
        if not connection.is_lost:
            self._idle[server.name].append(connection)
        return replies

    def _is_good(self, server: Server, connection: Connection) -> bool:
        """Return whether a connection is open, and leads to where the newest connection leads to. If not, close it."""
        if connection.address != self._addresses.get(server.name):
            connection.close()
        return not connection.is_lost

    def _check(self, server: Server, connection: Connection, replies: Sequence[Any]) -> None:
        """Close the connection, and doubt its server, after an error that says that another one may have the key: it
        was a master, for example.

        Raise redis-py's ConnectionError if another server has taken its place meanwhile: what this one says is void.
        """
        if connection.address != self._addresses.get(server.name):
            connection.close()
            raise RedisConnectionError(_REPLACED)
        if any(isinstance(reply, Exception) and failure_of(reply).elsewhere for reply in replies):
            self._doubted.add(server.name)
            connection.close()

    def close_idle(self) -> None:
        """Close the connections that no call uses now, and the shared ones."""
        for connections in (self._shared.values(), *self._idle.values()):
            for connection in connections:
                connection.close()
        self._shared.clear()
        self._idle.clear()

    def _idle_to(self, server: Server) -> Connection | None:
        connections = self._idle[server.name]
        while connections:
            if self._is_good(server, connection := connections.pop()):
                return connection
        return None

    async def _connect(self, server: Server) -> Connection:
        try:
            link = await server.connect()
        except BaseException:  # also when its time is over, because a server that hangs accepts connections
            self._doubted.add(server.name)
            raise
        self._addresses[server.name] = link.address
        if link.transport is None:
            return EmbeddedConnection(link)
        return SocketConnection(link, link.transport, self._blocks)
