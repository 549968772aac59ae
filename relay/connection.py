"""What ASGI does not tell of a client's connection: that it left, without reading from it, and what became of
the last bytes sent to it.

`Protocol` is uvicorn's own with a `Connection` put into every scope.  Under another server there is none, and
`Connection.of` answers one that never learns anything: all still works, but departures are seen late.
"""

import array
import asyncio
import contextlib
import fcntl
import socket
import struct
import termios
from collections.abc import Callable, Iterator
from typing import Any

from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_EXTENSION = "relay.connection"
#: Seconds that a client which has everything may take to close, before that counts as having read it.
_CLOSING = 5.0
#: Seconds between looks at how far a slow client is.
_LOOK = 0.05
#: Where `struct tcp_info` of Linux's include/uapi/linux/tcp.h has tcpi_bytes_acked, 64 bits.
_BYTES_ACKED_AT = 120


class Connection:
    """One client's connection."""

    def __init__(self, transport: Any = None) -> None:
        self.is_lost = False
        self.error: Exception | None = None
        self._transport = transport
        self._callbacks: set[Callable[[], None]] = set()

    @staticmethod
    def of(scope: Scope) -> "Connection":
        """The connection of a request."""
        return scope.get("extensions", {}).get(_EXTENSION) or Connection()

    def lost(self, error: Exception | None) -> None:
        """Called by the protocol when the connection is gone, whoever closed it."""
        self.is_lost, self.error = True, error
        for callback in tuple(self._callbacks):
            callback()

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

    def progress(self) -> int:
        """Bytes the client's machine has acknowledged since it connected; 0 where that cannot be asked."""
        if self._transport is None or self.is_lost:
            return 0
        return _acknowledged(self._transport.get_extra_info("socket"))

    async def cut(self) -> None:
        """Closes without completing the response, so that the client sees a broken one.

        What is buffered goes out first, if the client takes it within a second.
        """
        if self._transport is None:
            return
        self._transport.close()
        if not await self._wait_lost(1.0):
            self._transport.abort()
            await self._wait_lost(1.0)

    def hold(self) -> "Hold | None":
        """A hold on the socket that outlives the server's use of it; None where there is none to hold."""
        if self._transport is None or self.is_lost:
            return None
        # uvloop hands out a pseudo socket, which has no dup(); its descriptor can be duplicated.
        owned = self._transport.get_extra_info("socket")
        return Hold(socket.fromfd(owned.fileno(), owned.family, owned.type), self)

    async def _wait_lost(self, timeout: float) -> bool:
        event = asyncio.Event()
        with self.telling(event.set):
            await _wait(event, timeout)
        return self.is_lost


class Hold:
    """A duplicate of a client's socket, taken before the server closes its own.

    TCP acknowledges only that the client's kernel has the bytes.  But a process that goes away with bytes
    unread makes its kernel answer with a reset, where one that has read everything sends a plain end; the
    duplicate is there to see which of the two comes.
    """

    def __init__(self, duplicate: socket.socket, connection: Connection) -> None:
        self._socket = duplicate
        self._socket.setblocking(False)
        self._connection = connection
        self._changed = asyncio.Event()

    async def delivered(self, *, patience: float, behind_proxy: bool) -> bool:
        """Whether the client took everything.  Call it when the server was given the end of the response.

        Waits for as long as the client takes some bytes within every `patience` seconds; then for it to
        close, and one that has everything and does not close within 5 s counts as having read it.
        `behind_proxy`: a reset by a proxy that had everything says nothing about its client.
        """
        try:
            return await self._flushed(patience) and await self._closed(patience, behind_proxy=behind_proxy)
        finally:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._socket.close()

    async def _flushed(self, patience: float) -> bool:
        """Waits until the server has written all of its buffer and closed its descriptor."""
        with self._connection.telling(self._changed.set):
            while not self._connection.is_lost:
                if not await self._moves(patience):
                    return False
        return self._connection.error is None

    async def _closed(self, patience: float, *, behind_proxy: bool) -> bool:
        """Ends our side, and waits until the client ends its own."""
        loop, end = asyncio.get_running_loop(), None
        with contextlib.suppress(OSError):  # it may be reset already, which recv() tells
            self._socket.shutdown(socket.SHUT_WR)
        loop.add_reader(self._socket.fileno(), self._changed.set)
        while True:
            has_all = _unacknowledged(self._socket) <= 1  # our FIN counts as one
            if end and has_all:
                return True
            moved = await self._moves(_CLOSING if has_all else patience)
            if end is None and (end := self._ended()) is not None:
                loop.remove_reader(self._socket.fileno())  # it would be readable from now on
            if end is False:
                return behind_proxy and _unacknowledged(self._socket) <= 1
            if not moved:
                return has_all

    async def _moves(self, patience: float) -> bool:
        """Waits until something has changed or the client has acknowledged more; False after `patience`."""
        before, loop = _acknowledged(self._socket), asyncio.get_running_loop()
        deadline = loop.time() + patience
        while (left := deadline - loop.time()) > 0:
            if await _wait(self._changed, min(_LOOK, left)):
                self._changed.clear()
                return True
            if _acknowledged(self._socket) != before:
                return True
        return False

    def _ended(self) -> bool | None:
        """True: the client closed. False: it reset the connection. None: neither yet."""
        try:
            return None if self._socket.recv(65536) else True
        except BlockingIOError:
            return None
        except OSError:
            return False


async def _wait(event: asyncio.Event, timeout: float) -> bool:
    try:
        async with asyncio.timeout(timeout):
            await event.wait()
    except TimeoutError:
        return False
    return True


def _unacknowledged(sock: socket.socket) -> int:
    """Linux's SIOCOUTQ: bytes in the socket's send queue.  0 where it cannot be asked."""
    queue = array.array("i", [0])
    try:
        fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, queue)
    except OSError:
        return 0
    return queue[0]


def _acknowledged(sock: socket.socket) -> int:
    """Bytes the peer's TCP has acknowledged since the connection began.  0 where it cannot be asked."""
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_ACKED_AT + 8)
    except (OSError, AttributeError):
        return 0
    return int(struct.unpack_from("=Q", info, _BYTES_ACKED_AT)[0]) if len(info) >= _BYTES_ACKED_AT + 8 else 0


class Protocol(HttpToolsProtocol):
    """uvicorn's protocol, with a `Connection` in every scope."""

    connection: Connection

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.connection = Connection(transport)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {_EXTENSION: self.connection}  # type: ignore[dict-item]

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.connection.lost(exc)
