"""What ASGI does not tell of a client's connection: above all that it left, without reading from it.

`protocol.Protocol` puts a `Connection` into every scope.  Under another server there is none, and `Connection.of`
answers one that never learns anything: all still works, but departures are seen late.
"""

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from starlette.types import Scope

from relay.buffers import Buffer, Bytes
from relay.server.tcp import Hangups, acknowledged, has_ended, reset_when_closed, unacknowledged

#: Where a scope's extensions have the `Connection`.
EXTENSION = "relay.connection"
#: Headers that only proxies set.
_PROXY_HEADERS = {b"via", b"forwarded", b"x-forwarded-for"}
#: Bytes of its body that may be read into memory to see whether an upload that waits behind a proxy still lives.
#: As much lies in buffers before the end of a client that has left: up to 5 MB of HAProxy's, 13 MB of nginx's.
_AHEAD_MOST = 16 * 1024 * 1024
#: What spoils a response that is cut off: the size of a chunk that does not follow, with a space behind it. aiohttp
#: permits the space, and misses the chunk; after anything that it does not permit, it notices no end, and hangs. wget
#: takes a missing chunk for the end of the file, unless a reset follows.
_BAD_CHUNK = b"1 \r\n"
#: No record of TLS: their types are 20 to 24.
_BAD_RECORD = bytes(5)
#: Seconds between looks at whether a client's machine has acknowledged everything.
_LOOK = 0.01


class Served(Protocol):
    """The server's side of a connection, as `protocol.Protocol` is."""

    transport: Any
    flow: Any

    @property
    def answered(self) -> Any: ...
    @property
    def untaken(self) -> int: ...
    def pour(self, buffer: Buffer, size: int, arrived: Callable[[], None]) -> None: ...
    def pour_no_more(self) -> None: ...
    def write_body(self, data: Bytes) -> None: ...


class Connection:
    """One client's connection."""

    def __init__(self, protocol: "Served | None" = None, hangups: Hangups | None = None) -> None:
        self.is_lost = False
        self.error: Exception | None = None
        #: Whether what we talk to passes on what somebody else says, and so cannot answer for them.
        self.behind_proxy = False
        #: Whether the client has said over TLS that it ends, and whether all that was sent until then had reached it.
        self.has_ended = self.had_all = False
        #: Whether the connection outlives its response, for the client to end it.
        self.is_held = False
        self._protocol = protocol
        self._transport: Any = protocol.transport if protocol is not None else None
        self._hangups = hangups
        self._callbacks: set[Callable[[], None]] = set()
        self._takes_interim = True
        self._reads_ahead = self._sent_interim = False

    @staticmethod
    def of(scope: Scope) -> "Connection":
        """The connection of a request."""
        connection: Connection = scope.get("extensions", {}).get(EXTENSION) or Connection()
        connection.behind_proxy = any(name in _PROXY_HEADERS for name, _ in scope["headers"])
        # A proxy may take an interim answer for the answer, and HTTP/1.0 does not know them.
        connection._takes_interim = not connection.behind_proxy and scope["http_version"] == "1.1"
        return connection

    def lost(self, error: Exception | None) -> None:
        """Called by the protocol when the connection is gone, whoever closed it."""
        self.is_lost, self.error = True, error
        for callback in tuple(self._callbacks):
            callback()

    def ended(self) -> None:
        """Called by the protocol when the client has said that it ends, over TLS before TCP does.

        The server lets go at once of a connection that is held for that.  It would answer with our own word of it,
        which is data, and so draw a reset from the kernel of a client that has closed, as if bytes had been left
        unread; and a reset that is there already it would take away from those who ask for it (see `delivery`).
        """
        self.has_ended = True
        if self.is_held:
            # What it has it acknowledges with its word at the latest; what it has not, aborting throws away.
            self.had_all = not unacknowledged(self._transport.get_extra_info("socket"))
            self._transport.abort()

    @contextlib.contextmanager
    def telling(self, callback: Callable[[], None]) -> Iterator[None]:
        """Calls `callback` when the connection is lost; at once if it is already."""
        if self.is_lost:
            callback()
        self._callbacks.add(callback)
        try:
            yield
        finally:
            self._callbacks.discard(callback)

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Within it, a client that leaves is noticed even while nothing is read from it, where its machine's
        end of the connection has reached ours; where that is stuck behind unread bytes, `probe` helps."""
        if self._transport is None or self._hangups is None or self.is_lost:
            yield
            return
        descriptor = self._transport.get_extra_info("socket").fileno()
        with self._hangups.watching(descriptor, self._transport.abort):
            try:
                yield
            finally:
                self.stop_probing()
                self._hangups.read_ahead.pop(self, None)

    def probe(self) -> bool:
        """Makes a client show whether it has left, where it can only be seen by doing something.

        True: it has not.  False: not known yet, call again in a while.  `stop_probing` ends it.

        With megabytes of body unread, the client's end is stuck behind them.  A client that lives takes an
        interim `100 Continue` (RFC 9110 section 15.2 obliges it, and its body is on its way already) and its
        kernel acknowledges it; the kernel of one that does not answers with a reset.  Where that cannot be
        sent the body is read on, into memory, until the end comes into sight or the limit is reached.
        """
        if self.is_lost:
            return False
        if self._protocol is None or not (self._protocol.flow.read_paused or self._reads_ahead):
            return True  # it is being read, so its end would have been seen
        if not self._takes_interim:
            self._reads_ahead = True
            self.read_on()
        elif not self._sent_interim:
            self._sent_interim = True
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        else:
            sock = self._transport.get_extra_info("socket")
            return not self._transport.get_write_buffer_size() and not unacknowledged(sock)
        return False

    def stop_probing(self) -> None:
        """Ends what `probe` began."""
        self._reads_ahead = self._sent_interim = False

    def read_on(self) -> None:
        """Called by the protocol after each piece of a body: it may have stopped reading, as enough is untaken."""
        if self._reads_ahead and self._protocol is not None and self._hangups is not None:
            self._hangups.read_ahead[self] = self._untaken
            if self._untaken() < _AHEAD_MOST and self._hangups.may_read_ahead:
                self._protocol.flow.resume_reading()

    @property
    def has_body(self) -> bool:
        """Whether some of the request's body has been read and not been taken."""
        return self._untaken() > 0

    def _untaken(self) -> int:
        """Bytes of the body that have been read and not been taken."""
        return self._protocol.untaken if self._protocol is not None else 0

    @contextlib.contextmanager
    def pouring(self, buffer: Buffer, size: int, arrived: Callable[[], None]) -> Iterator[bool]:
        """Within it, the rest of the request's body, `size` bytes, goes straight into the buffer; False: it cannot.

        Calls `arrived` when some bytes have come, and when the connection is lost.  A buffer that is full pauses it,
        until `pour_on`.
        """
        if self._protocol is None or self.is_lost:
            yield False
            return
        self._protocol.pour(buffer, size, arrived)
        try:
            yield True
        finally:
            self._protocol.pour_no_more()

    def pour_on(self) -> None:
        """Says that the buffer has room again."""
        if self._protocol is not None and not self.is_lost:
            self._protocol.flow.resume_reading()

    async def has_room(self) -> bool:
        """Waits until more may be written; False where it would go nowhere, without a word: the client has left.

        A transport takes note of its client's end before it says that the connection is lost, and swallows what is
        written between the two.  So ask right before each write, with nothing awaited in between.  Over TLS uvloop
        does not even say that it is closing: there the kernel knows, or the client has said so.
        """
        if self._protocol is not None:
            await self._protocol.flow.drain()
        if self.is_lost or self._transport is None:
            return not self.is_lost
        if self.is_tls and (self.has_ended or has_ended(self._transport.get_extra_info("socket"))):
            return False
        return not self._transport.is_closing()

    def write(self, data: Bytes) -> bool:
        """Hands over some of the body of a response that has begun; False: it has to go by the server's `send`."""
        if self._protocol is None or not data:
            return False
        self._protocol.write_body(data)
        return True

    def progress(self) -> int:
        """Bytes the client's machine has acknowledged since it connected; 0 where that cannot be asked."""
        if self._transport is None or self.is_lost:
            return 0
        return acknowledged(self._transport.get_extra_info("socket"))

    @property
    def transport(self) -> Any:
        """The server's transport, while there is one."""
        return None if self.is_lost else self._transport

    @property
    def is_answering(self) -> bool:
        """Whether a response has begun and is not complete."""
        cycle = self._protocol.answered if self._protocol is not None else None
        return cycle is not None and cycle.response_started and not cycle.response_complete

    @property
    def is_tls(self) -> bool:
        transport = self.transport
        return transport is not None and transport.get_extra_info("sslcontext") is not None

    def hold(self) -> None:
        """Leaves it to the client to end the connection when it has the response that is under way.

        Call it before the response's end is sent; after that somebody has to see to it that it does end.
        """
        if self._protocol is not None and self._protocol.answered is not None:
            self.is_held = self._protocol.answered.keep_alive = True

    async def cut(self) -> None:
        """Close without completing the response, so that the client sees a broken one.

        What is buffered goes out first, if the client takes it within a second.
        """
        if self._transport is None or self.is_lost:
            return
        if self.is_answering and not self.behind_proxy:
            await self._break_off()
        else:
            self._transport.close()
        if not await self._wait_lost(1.0):
            self._transport.abort()
            await self._wait_lost(1.0)

    async def _break_off(self) -> None:
        """End the connection with a reset, and spoil the response, so that no client takes it for a whole one.

        A plain end short of the Content-Length is enough for curl, but not for requests with urllib3 1.26, HTTPie and
        Java's HttpURLConnection, which notice a reset only. For chunks, Node 20's fetch takes both for the end of the
        file if the response says `Connection: close`; it notices a chunk size that breaks RFC 9112 section 7.1. Inside
        TLS, Python 3.10 to 3.12 take a reset for a plain end (python/cpython#115627); they notice a broken record.

        A reset destroys what the client's machine has not acknowledged, so wait for that first, at most 1 s. A proxy
        would pass on none of this; it sees by the framing that something is missing.
        """
        if self._protocol is not None and self._protocol.answered.chunked_encoding:
            self._transport.write(_BAD_CHUNK)
        await self._wait_acknowledged(1.0)
        if self.is_tls:
            with contextlib.suppress(OSError):
                os.write(self._transport.get_extra_info("socket").fileno(), _BAD_RECORD)
            await self._wait_acknowledged(1.0)
        if not self.is_lost:
            reset_when_closed(self._transport.get_extra_info("socket"))
            self._transport.abort()

    async def _wait_acknowledged(self, timeout: float) -> None:
        """Wait until the client's machine has all that was written, or the connection is lost, or time is up."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while not self.is_lost and self._is_behind():
                    await self._wait_lost(_LOOK)

    def _is_behind(self) -> bool:
        sock = self._transport.get_extra_info("socket")
        return bool(self._transport.get_write_buffer_size() or unacknowledged(sock))

    async def _wait_lost(self, timeout: float) -> bool:
        event = asyncio.Event()
        with self.telling(event.set), contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await event.wait()
        return self.is_lost
