"""What ASGI does not tell of a client's connection: that it left, without reading from it, and what became of
the last bytes sent to it.

`Protocol` is uvicorn's own with a `Connection` put into every scope.  Under another server there is none, and
`Connection.of` answers one that never learns anything: all still works, but departures are seen late.
"""

import array
import asyncio
import contextlib
import fcntl
import select
import socket
import struct
import termios
from collections.abc import Callable, Iterator
from typing import Any

from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_EXTENSION = "relay.connection"
#: Headers that only proxies set.
_PROXY_HEADERS = {b"via", b"forwarded", b"x-forwarded-for"}
#: Headers that announce a body.
_BODY_HEADERS = {b"content-length", b"transfer-encoding"}
#: Where the lifespan's state has the `Hangups`.
HANGUPS = "hangups"
#: Bytes of an upload that waits which probes may read into memory.
_PROBE_MOST = 1024 * 1024
#: Seconds that a client which has everything may take to close, before that counts as having read it.
_CLOSING = 5.0
#: Seconds between looks at how far a slow client is.
_LOOK = 0.05
#: Where `struct tcp_info` of Linux's include/uapi/linux/tcp.h has tcpi_bytes_acked, 64 bits.
_BYTES_ACKED_AT = 120


class Hangups:
    """Tells of clients that have closed their end, of connections that nobody reads: one epoll for all.

    uvicorn stops reading a connection when 64 KiB of body are buffered, and an event loop does not poll what it
    does not read.  Linux's EPOLLRDHUP tells of the peer's end regardless, once all before it is in our kernel.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[], None]] = {}
        asyncio.get_running_loop().add_reader(self._epoll.fileno(), self._tell)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._epoll.fileno())
        self._epoll.close()

    @contextlib.contextmanager
    def watching(self, descriptor: int, callback: Callable[[], None]) -> Iterator[None]:
        """Calls `callback` once when the peer of this socket has closed or reset."""
        self._callbacks[descriptor] = callback
        self._epoll.register(descriptor, select.EPOLLRDHUP | select.EPOLLONESHOT)
        try:
            yield
        finally:
            if self._callbacks.get(descriptor) is callback:
                del self._callbacks[descriptor]
                with contextlib.suppress(OSError):  # closed meanwhile: the kernel has forgotten it already
                    self._epoll.unregister(descriptor)

    def _tell(self) -> None:
        for descriptor, _ in self._epoll.poll(0):
            if (callback := self._callbacks.get(descriptor)) is not None:
                callback()


class Connection:
    """One client's connection."""

    def __init__(self, protocol: "Protocol | None" = None, hangups: Hangups | None = None) -> None:
        self.is_lost = False
        self.error: Exception | None = None
        #: Whether what we talk to passes on what somebody else says, and so cannot answer for them.
        self.behind_proxy = False
        self._protocol = protocol
        self._transport: Any = protocol.transport if protocol is not None else None
        self._hangups = hangups
        self._callbacks: set[Callable[[], None]] = set()

    @staticmethod
    def of(scope: Scope) -> "Connection":
        """The connection of a request."""
        connection: Connection = scope.get("extensions", {}).get(_EXTENSION) or Connection()
        connection.behind_proxy = any(name in _PROXY_HEADERS for name, _ in scope["headers"])
        return connection

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

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Within it, a client that leaves is noticed even while nothing is read from it, where its machine's
        end of the connection has reached ours; where that is stuck behind unread bytes, `probe` helps."""
        if self._transport is None or self._hangups is None or self.is_lost:
            yield
            return
        with self._hangups.watching(self._transport.get_extra_info("socket").fileno(), self._transport.abort):
            yield

    @property
    def in_sight(self) -> bool:
        """Whether the client's leaving would be seen at once: nothing unread stands before it."""
        return self._protocol is None or not self._protocol.flow.read_paused

    def probe(self) -> None:
        """Makes a client show that it has left, where it can only be seen by doing something.

        With megabytes of body unread, the client's end is stuck behind them.  A client that lives takes an
        interim `100 Continue` (RFC 9110 section 15.2 obliges it, and its body is on its way already); the
        kernel of one that does not answers with a reset.  A proxy may take it for the answer, so behind one a
        bit more of the body is read instead, whereupon the proxy's end comes nearer.
        """
        if self._protocol is None or self.is_lost or self.in_sight:
            return
        if not self.behind_proxy:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        elif self._protocol.buffered() < _PROBE_MOST:
            self._protocol.flow.resume_reading()  # until the next piece pauses it again

    def progress(self) -> int:
        """Bytes the client's machine has acknowledged since it connected; 0 where that cannot be asked."""
        if self._transport is None or self.is_lost:
            return 0
        return _acknowledged(self._transport.get_extra_info("socket"))

    @property
    def is_answering(self) -> bool:
        """Whether a response has begun and is not complete."""
        return self._protocol is not None and self._protocol.is_answering()

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

    async def delivered(self, *, patience: float) -> bool:
        """Whether the client took everything.  Call it when the server was given the end of the response.

        Waits for as long as the client takes some bytes within every `patience` seconds; then for it to
        close, and one that has everything and does not close within 5 s counts as having read it.
        """
        try:
            return await self._flushed(patience) and await self._closed(patience)
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

    async def _closed(self, patience: float) -> bool:
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
                # A proxy may reset when it has everything, which then says nothing about its client.
                return self._connection.behind_proxy and _unacknowledged(self._socket) <= 1
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
        self.connection = Connection(self, self.app_state.get(HANGUPS))

    def buffered(self) -> int:
        """Bytes of the body that have been read and not been taken."""
        return len(self.cycle.body) if self.cycle is not None else 0

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {_EXTENSION: self.connection}  # type: ignore[dict-item]

    def on_headers_complete(self) -> None:
        # After an Upgrade the parser takes no body: an upload would look whole, and empty.
        if self.parser.should_upgrade() and any(n in _BODY_HEADERS and v != b"0" for n, v in self.headers):
            self.send_400_response("Nothing can be upgraded here: retry without the Upgrade header.")
        else:
            super().on_headers_complete()

    def is_answering(self) -> bool:
        """Whether a response has begun and is not complete."""
        return self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete

    def send_400_response(self, msg: str) -> None:
        """Refuses what is not HTTP; in the middle of a response nothing may be written into it any more."""
        if self.is_answering():
            self.transport.abort()
        else:
            super().send_400_response(msg)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.connection.lost(exc)
