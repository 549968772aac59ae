"""One connection to Redis. Commands are sent without waiting for the replies to those before them, and Redis replies in
the same order.

redis-py opens the connection (see `redis_py`), and then its socket is ours. The kernel writes what arrives into a
block, and the strings of the replies are slices of that block, so no byte is copied after that. With redis-py's own
reader and hiredis the bytes of a transfer were copied four times.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Sequence
from typing import Any, Protocol, cast

from redis.exceptions import ConnectionError as RedisConnectionError

from relay.buffers import BATCH, CHUNK, Blocks, Bytes
from relay.store.redis_py import Link
from relay.store.resp import Command, IncompleteError, pack, parse, reader

#: Bytes of a block for small replies.
_BLOCK_SMALL = 8 * 1024
#: Bytes of a block for large replies: all chunks of one read fit into it.
BLOCK = BATCH * (CHUNK + 64) + 8 * 1024
#: Minimum bytes of a block that has to be made for one huge reply, in addition to that reply: what follows a chunk in a
#: reply of several.
_AFTER = 64
_NONE = memoryview(b"")
_CLOSED = "Redis has closed the connection"


class Connection(Protocol):
    """One connection to Redis."""

    #: Whether no more commands can be sent through it.
    is_lost: bool
    #: Where it leads to.
    address: object
    #: When Redis last sent something through it, in the event loop's seconds.
    heard: float

    def call(self, commands: Sequence[Command], *, large: bool = False) -> Awaitable[list[Any]]:
        """Send commands and return their replies. A reply that is an error is not raised.

        `large`: the replies may be large. Nobody else may then be waiting for replies on this connection.
        Raise redis-py's ConnectionError.
        """

    def close(self) -> None:
        """Close it. Whoever waits for a reply gets a ConnectionError."""


class SocketConnection(asyncio.BufferedProtocol):
    """A connection to a Redis server; see `Connection`.

    A call that is cancelled leaves the connection usable. But commands that are sent after it still wait for the reply
    to the cancelled one, because Redis replies in order.
    """

    def __init__(self, link: Link, transport: asyncio.Transport, blocks: Blocks) -> None:
        self.is_lost = False
        self.address = link.address
        self._loop = asyncio.get_running_loop()
        self.heard = self._loop.time()
        self._link = link
        self._transport = transport
        #: What is sent at the end of this round of the event loop.
        self._pieces: list[Bytes] = []
        #: The calls that wait, in the order of their commands: how many replies each gets, and what it waits for.
        self._waiting: deque[tuple[int, asyncio.Future[list[Any]]]] = deque()
        #: The replies so far to the first of them.
        self._replies: list[Any] = []
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
        link.hand_over(transport, self)

    def call(self, commands: Sequence[Command], *, large: bool = False) -> "asyncio.Future[list[Any]]":
        pieces = pack(commands)  # first, because it may raise
        if self.is_lost:
            raise RedisConnectionError(_CLOSED)
        if not self._waiting:
            self._transport.writelines(pieces)
        else:  # there may be a crowd: all calls of this round of the event loop are sent together
            if not self._pieces:
                self._loop.call_soon(self._flush)
            self._pieces += pieces
        replies = self._loop.create_future()
        self._waiting.append((len(commands), replies))
        self._is_large = large
        return replies

    def _flush(self) -> None:
        pieces, self._pieces = self._pieces, []
        if not self.is_lost:
            self._transport.writelines(pieces)

    def close(self) -> None:
        self.is_lost = True
        self._transport.abort()

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
        if need + _AFTER > BLOCK:
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
        self._reader.feed(self._small, 0, nbytes)  # type: ignore[arg-type]  # it takes any buffer
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
        """Give a reply to the call that is next."""
        if not self._waiting:
            self.is_lost = True  # Redis says something unasked only when it is about to close the connection
            return
        self._replies.append(reply)
        count, all_ = self._waiting[0]
        if len(self._replies) == count:
            self._waiting.popleft()
            replies, self._replies = self._replies, []
            if not all_.done():
                all_.set_result(replies)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
        while self._waiting:
            _, replies = self._waiting.popleft()
            if not replies.done():
                replies.set_exception(RedisConnectionError(_CLOSED))


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


def connection_over(link: Link, blocks: Blocks) -> Connection:
    """Return a connection over what redis-py has opened. `blocks` are of `BLOCK` bytes each."""
    if link.transport is None:
        return EmbeddedConnection(link)
    return SocketConnection(link, link.transport, blocks)
