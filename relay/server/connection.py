"""What ASGI does not say about a client's connection: above all that its client has left, without reading from it.

`protocol.Protocol` puts a `Connection` into every scope. Under another server there is none, and `Connection.of`
returns one that never learns anything: everything still works, but a client's leaving is noticed late.
"""

import asyncio
import contextlib
import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol
from weakref import proxy

from starlette.types import Scope

from relay.buffers import Bytes
from relay.server.intake import BodyIntake
from relay.server.probe import Probe
from relay.server.tcp import (
    Hangups,
    acknowledged,
    has_stopped_answering,
    peer_has_closed,
    reset_when_closed,
    unacknowledged,
)
from relay.tasks import Limit, occurs

#: The key of the `Connection` in a scope's extensions.
EXTENSION = "relay.connection"
#: Headers that only proxies set.
_PROXY_HEADERS = {b"via", b"forwarded", b"x-forwarded-for"}
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_RESUMABLE = "HTTP/1.1 104 Upload Resumption Supported"
#: What spoils a response that is cut off: the size of a chunk that does not follow, and a space. aiohttp permits the
#: space, and misses the chunk; after anything that it does not permit, it does not notice the end, and hangs. wget
#: takes a missing chunk for the end of the file, unless a reset follows.
_BAD_CHUNK = b"1 \r\n"
#: Bytes that are no TLS record: the types of records are 20 to 24.
_BAD_RECORD = bytes(5)
#: Seconds between looks at whether a client's machine has acknowledged everything.
_LOOK = 0.01


class Served(Protocol):
    """The server's side of a connection; `uvicorn_adapter.HttpProtocol` is one."""

    @property
    def transport(self) -> Any: ...
    @property
    def is_read(self) -> bool: ...
    @property
    def is_answering(self) -> bool: ...
    @property
    def is_chunked(self) -> bool: ...
    @property
    def untaken(self) -> int: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def receive_into(self, intake: BodyIntake) -> bool: ...
    def stop_receiving(self, missing: int) -> None: ...
    def write_body(self, data: Bytes) -> None: ...
    def keep_open(self) -> bool: ...
    def join_head(self) -> None: ...
    async def wait_until_writable(self) -> None: ...


class Connection:
    """One client's connection."""

    def __init__(self, protocol: Served | None = None, hangups: Hangups | None = None) -> None:
        self.is_lost = False
        self.error: Exception | None = None
        #: Whether the peer is a proxy, which passes on its client's bytes and cannot answer for the client.
        self.behind_proxy = False
        #: Whether the client has closed TLS (its close_notify has come), and whether everything that was sent until
        #: then had reached it.
        self.tls_closed = self.had_everything = False
        #: Whether the connection stays open after its response, so that the client closes it.
        self.is_held = False
        #: Whether the client understands interim responses.
        self.takes_interim = True
        #: Finds out whether the client has left. It must not keep the connection, which keeps it: see `lost`.
        self.probe = Probe(proxy(self), hangups.read_ahead if hangups is not None else None)
        #: The server's transport, or None if it is lost.
        self.transport: Any = protocol.transport if protocol is not None else None
        self.is_tls = self.transport is not None and self.transport.get_extra_info("sslcontext") is not None
        self._protocol = protocol
        self._transport: Any = self.transport
        self._hangups = hangups
        self._callbacks: set[Callable[[], None]] = set()
        self._was_answering, self._was_untaken = False, 0

    @staticmethod
    def of(scope: Scope) -> "Connection":
        """Return the connection of a request."""
        connection: Connection = scope.get("extensions", {}).get(EXTENSION) or Connection()
        connection.behind_proxy = not _PROXY_HEADERS.isdisjoint([name for name, _ in scope["headers"]])
        # A proxy may take an interim response for the final one, and HTTP/1.0 does not know them.
        connection.takes_interim = not connection.behind_proxy and scope["http_version"] == "1.1"
        return connection

    # -- the end of the connection -------------------------------------------------------------------------

    def lost(self, error: Exception | None) -> None:
        """Record that the connection is gone, whoever closed it. The protocol calls this."""
        self._was_answering, self._was_untaken = self.is_answering, self.untaken
        # The protocol refers to this connection, too. If that kept it, only the garbage collector could free the two,
        # with all that they hold: see `run.Server.on_started`.
        self.is_lost, self.error, self.transport, self._protocol = True, error, None, None
        for callback in tuple(self._callbacks):
            callback()

    def note_tls_closed(self) -> None:
        """Record that the client has closed TLS, which it does before it closes TCP. The protocol calls this.

        A connection that is held for that is aborted at once. Otherwise the server would respond with its own
        close_notify, which is data. The kernel of a client that has closed its socket would then send a reset, as if
        bytes had been left unread; and a reset that is there already would be consumed before `Delivery` looks for it.
        """
        self.tls_closed = True
        if self.is_held:
            # The close_notify acknowledges what the client has; aborting throws away what it does not have.
            self.had_everything = (sock := self.socket) is not None and not unacknowledged(sock)
            if not self._transport.is_closing():  # or this is called by `close`, and uvloop fails if it is aborted then
                self._transport.abort()

    def on_lost(self, callback: Callable[[], None]) -> AbstractContextManager[None]:
        """Within it, call `callback` when the connection is lost, at once if it is already."""
        return _OnLost(self, self._callbacks, callback)

    def watched(self) -> AbstractContextManager[None]:
        """Within it, notice a client that leaves even while nothing is read from it.

        That works once the end of its connection has reached our kernel. If unread bytes are in front of it, use
        `probe`.
        """
        if (sock := self.socket) is None or self._hangups is None:
            return contextlib.nullcontext()
        return _Watched(self._hangups, sock.fileno(), self._transport.abort, self.probe)

    # -- reading -------------------------------------------------------------------------------------------

    @property
    def is_read(self) -> bool:
        """Whether the server reads the client, so that it would see the end of its connection."""
        return self._protocol is None or self._protocol.is_read

    @property
    def untaken(self) -> int:
        """Bytes of the body that were received and have not been taken, or were not when the connection was lost."""
        return self._protocol.untaken if self._protocol is not None else self._was_untaken

    def receive_into(self, intake: BodyIntake) -> bool:
        """Receive the rest of the request's body straight into the intake (see `intake.Source`)."""
        return self._protocol is not None and not self.is_lost and self._protocol.receive_into(intake)

    def stop_receiving(self, missing: int) -> None:
        """Let the parser have what comes next: `missing` bytes of the body, and the requests behind it."""
        if self._protocol is not None:
            self._protocol.stop_receiving(missing)

    def pause_reading(self) -> None:
        """Do not read the client, unless it is being probed and has to be read for that."""
        if self._protocol is not None and not self.is_lost:
            self._protocol.pause_reading()
            self.probe.read_further()

    def resume_reading(self) -> None:
        """Read the client again."""
        if self._protocol is not None and not self.is_lost:
            self._protocol.resume_reading()

    # -- writing -------------------------------------------------------------------------------------------

    async def has_room(self) -> bool:
        """Wait until more may be written. Return False if it would silently go nowhere, because the client has left.

        A transport notices that its client has closed before it reports that the connection is lost, and swallows
        what is written in between. So call this right before each write, and await nothing in between. Over TLS,
        uvloop does not even say that it is closing; there the kernel knows, or the client has closed TLS.
        """
        if self._protocol is not None:
            await self._protocol.wait_until_writable()
        if self.is_lost or self._transport is None:
            return not self.is_lost
        if (sock := self.socket) is None or self._transport.is_closing():
            return False
        return not (self.is_tls and (self.tls_closed or peer_has_closed(sock)))

    def write(self, data: Bytes) -> bool:
        """Write some of the body of a response that has begun. Return False if the server's `send` has to do that."""
        if self._protocol is None or not data:
            return False
        self._protocol.write_body(data)
        return True

    def send_interim(self) -> None:
        """Send `100 Continue`."""
        self._transport.write(_CONTINUE)

    def announce_upload(self, fields: Mapping[str, str]) -> None:
        """Send `104 Upload Resumption Supported` with these header fields."""
        if self.transport is not None and not self._transport.is_closing():
            lines = [_RESUMABLE, *(f"{name}: {value}" for name, value in fields.items()), "", ""]
            self._transport.write("\r\n".join(lines).encode("latin-1"))

    @property
    def behind(self) -> int:
        """Bytes that were written and that the client's kernel has not acknowledged yet; 0 if that is not known."""
        if (sock := self.socket) is None:
            return 0
        return int(self._transport.get_write_buffer_size()) + unacknowledged(sock)

    def has_acknowledged(self) -> bool:
        """Return whether the client's kernel has acknowledged everything that was written."""
        return self.socket is not None and not self.behind

    def progress(self) -> int:
        """Return the bytes that the client's kernel has acknowledged since it connected; 0 if that is not known."""
        return acknowledged(sock) if (sock := self.socket) is not None else 0

    def has_stopped_answering(self) -> bool:
        """Return whether the client's machine, or the line to it, seems to be gone."""
        return (sock := self.socket) is not None and has_stopped_answering(sock)

    # -- the response --------------------------------------------------------------------------------------

    @property
    def peer(self) -> str:
        """The IP address at the other end of the connection, which may be a proxy's; empty if that is not known."""
        name = self.transport.get_extra_info("peername") if self.transport is not None else None
        return name[0] if isinstance(name, tuple) else ""

    @property
    def socket(self) -> Any:
        """The server's socket, or None if it is closed.

        Over TLS, it is closed one round of the event loop before the connection `is_lost`, and everybody else who is
        due in that round runs in between. So ask here each time, and await nothing before the socket is used.
        """
        return None if self.transport is None else self.transport.get_extra_info("socket")

    @property
    def has_socket(self) -> bool:
        """Whether there is a real client, be it gone or not, and not one that calls the app directly."""
        return self._transport is not None

    @property
    def is_answering(self) -> bool:
        """Whether a response has begun and is not complete, or was not when the connection was lost."""
        return self._protocol.is_answering if self._protocol is not None else self._was_answering

    def join_head(self) -> None:
        """Send the head of the response, which has not begun, with the beginning of its body, which is not empty."""
        if self._protocol is not None:
            self._protocol.join_head()

    def hold(self) -> None:
        """Leave it to the client to close the connection once it has the response that is under way.

        Call this before the end of the response is sent. Afterwards the caller has to make sure that the connection
        closes at last.
        """
        self.is_held = self._protocol.keep_open() if self._protocol is not None else self.has_socket

    async def cut(self) -> None:
        """Close the connection without completing the response, so that the client sees a broken one.

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
        if self._protocol is not None and self._protocol.is_chunked:
            self._transport.write(_BAD_CHUNK)
        await self._wait_acknowledged(1.0)
        if self.is_tls and (sock := self.socket) is not None:
            with contextlib.suppress(OSError):
                os.write(sock.fileno(), _BAD_RECORD)
            await self._wait_acknowledged(1.0)
        if (sock := self.socket) is not None:
            reset_when_closed(sock)
            self._transport.abort()

    async def _wait_acknowledged(self, timeout: float) -> None:
        """Wait until the client's machine has everything that was written, for at most `timeout` seconds."""
        with contextlib.suppress(TimeoutError), Limit(timeout):
            while not self.is_lost and not self.has_acknowledged():
                await self._wait_lost(_LOOK)

    async def _wait_lost(self, timeout: float) -> bool:
        event = asyncio.Event()
        with self.on_lost(event.set):
            await occurs(event, within=timeout)
        return self.is_lost


# A request enters several of these, and `contextlib.contextmanager` would cost three times as much.


class _OnLost(AbstractContextManager[None]):
    """See `Connection.on_lost`."""

    __slots__ = ("_callback", "_callbacks", "_connection")

    def __init__(
        self, connection: Connection, callbacks: set[Callable[[], None]], callback: Callable[[], None]
    ) -> None:
        self._connection = connection
        self._callbacks = callbacks
        self._callback = callback

    def __enter__(self) -> None:
        if self._connection.is_lost:
            self._callback()
        self._callbacks.add(self._callback)

    def __exit__(self, *_: object) -> None:
        self._callbacks.discard(self._callback)


class _Watched(AbstractContextManager[None]):
    """See `Connection.watched`."""

    __slots__ = ("_callback", "_descriptor", "_hangups", "_probe")

    def __init__(self, hangups: Hangups, descriptor: int, callback: Callable[[], None], probe: Probe) -> None:
        self._hangups = hangups
        self._descriptor = descriptor
        self._callback = callback
        self._probe = probe

    def __enter__(self) -> None:
        self._hangups.watch(self._descriptor, self._callback)

    def __exit__(self, *_: object) -> None:
        self._hangups.forget(self._descriptor, self._callback)
        self._probe.forget()
