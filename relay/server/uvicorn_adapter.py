"""The only module that uses what is private or undocumented in uvicorn, httptools and uvloop.

`HttpProtocol` is uvicorn's HTTP/1.1 protocol behind an interface of our own: hooks that `protocol.Protocol` overrides,
and operations that it and `Connection` call. `SignalServer` does the same for uvicorn's server. Each attribute and each
behaviour that is relied on here has a test in `tests/contract/test_uvicorn.py`, which says what breaks if it changes.
"""

import asyncio
import contextlib
import signal
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from types import FrameType
from typing import Any, NamedTuple, cast

import httptools
import uvicorn
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import HANDLED_SIGNALS

from relay.buffers import Bytes
from relay.errors import Error, Problem
from relay.server.discard import Discard
from relay.server.intake import BodyIntake


class Head(NamedTuple):
    """What a request says about itself before its body."""

    version: str
    #: With names in lower case.
    headers: Sequence[tuple[bytes, bytes]]
    #: Bytes of the URL and of the names and values of the headers.
    size: int


class HttpProtocol(HttpToolsProtocol):
    """One client's connection, served by uvicorn."""

    # -- hooks ---------------------------------------------------------------------------------------------

    def opened(self, state: Mapping[str, Any]) -> None:
        """Called when the client has connected, with the lifespan's state."""

    def closed(self, error: Exception | None) -> None:
        """Called when the connection is gone, whoever closed it."""

    def tls_closed(self) -> None:
        """Called when the client has closed its side of TLS. A client without TLS is just `closed`."""

    def received(self, data: bytes) -> None:
        """Called with everything that the client sends, but for what an intake receives. `parse` is to have it."""

    def head_received(self, head: Head) -> None:
        """Called when a request begins. Raise a Problem to refuse it; `parse` then returns that."""

    def body_received(self) -> None:
        """Called after each piece of a body that comes through the parser."""

    def body_complete(self) -> None:
        """Called when a request has arrived whole."""

    def response_complete(self, *, is_idle: bool) -> None:
        """Called when a response was sent. `is_idle`: no other request has arrived yet."""

    def last_response_complete(self) -> None:
        """Called in the place of `response_complete` when the connection has to close, but so that its client gets the
        response: call `discard_the_rest`."""

    transport: asyncio.Transport
    #: What every request finds among its scope's extensions.
    extensions: dict[str, Any]

    # -- called by the transport ---------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        # As uvicorn does it, but for the addresses: it asks the kernel, and uvloop makes a socket for each question.
        self.connections.add(self)
        self.transport = transport
        self.flow = FlowControl(transport)
        self.server = _address(transport, "sockname")
        self.client = _address(transport, "peername")
        self.scheme = "https" if transport.get_extra_info("sslcontext") is not None else "http"
        #: The request that is being answered, and those behind it.
        self._cycles: list[RequestResponseCycle] = []
        #: Bytes of this request's URL and headers so far.
        self._head_size = 0
        #: Whether a request's headers are complete and its body is not.
        self._in_body = False
        #: Whether the parser is being told about a body whose beginning it has not seen.
        self._is_preparing = False
        #: What receives in the place of this protocol.
        self._direct: _DirectReceiver | None = None
        #: Whether something was received that is no request.
        self._is_faulty = False
        #: Whether the response under way is the last, and its client may be sending still.
        self._is_last = False
        #: What throws away all that the client still sends.
        self._discard: Discard | None = None
        self.extensions = {}
        self.opened(self.app_state)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._discard is not None:
            self._discard.end()
        self.abandon_requests()  # uvicorn tells only the last, and then answers the others on a closed connection
        self.closed(exc)

    def shutdown(self) -> None:
        if self._discard is not None:
            self._discard.hurry()
        else:
            super().shutdown()

    def eof_received(self) -> None:
        self.tls_closed()

    def data_received(self, data: bytes) -> None:
        self.cancel_keep_alive_timer()
        self.received(data)

    # -- the parser, and what it calls ---------------------------------------------------------------------

    def parse(self, data: bytes) -> Problem | None:
        """Feed the parser. Return why the client cannot be understood, or None.

        A request that offers an upgrade is served as if it had not (RFC 9110 section 7.8). After the headers of such a
        request, httptools takes no body and stops. So a new parser is given the same headers without `Upgrade`, and
        then the rest: all checks and the framing of the body are those of any other request.
        """
        while True:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as offer:
                if self.transport.is_closing():
                    return None  # too many requests were sent ahead: do not repeat each of them
                head, data = self._head_without_upgrade(), data[offer.args[0] :]
                self.parser = self._new_parser()
                data = head + data
            except httptools.HttpParserError as error:
                self._is_faulty = True
                cause = error.__context__
                return cause if isinstance(cause, Problem) else Problem(Error.NOT_HTTP)
            else:
                return None

    def _offers_upgrade(self) -> bool:
        return bool(self.parser.should_upgrade())

    def _head_without_upgrade(self) -> bytes:
        request = b"%s %s HTTP/%s" % (
            self.parser.get_method(),
            self.url,
            self.parser.get_http_version().encode(),
        )
        headers = (name + b": " + value for name, value in self.headers if name != b"upgrade")
        return b"\r\n".join((request, *headers, b"", b""))

    def _new_parser(self) -> Any:
        parser = httptools.HttpRequestParser(self)
        parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        return parser

    def on_message_begin(self) -> None:
        if self._is_preparing:
            return
        super().on_message_begin()
        self._head_size = 0
        self.scope["extensions"] = self.extensions

    def on_url(self, url: bytes) -> None:
        if self._is_preparing:
            return
        self._head_size += len(url)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        # Trailers come here too, and must not pass for headers (RFC 9110 section 6.5.1).
        if self._is_preparing or self._in_body:
            return
        self._head_size += len(name) + len(value)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self._is_preparing:
            return
        if self.parser.get_method() == b"CONNECT":
            raise Problem(Error.NOT_HTTP)  # this is no proxy
        if self._offers_upgrade():
            return  # it comes again without the offer
        version = self.parser.get_http_version()
        self.head_received(Head(version, self.headers, self._head_size))
        if version == "1.0":
            self.expect_100_continue = False  # it does not know interim responses (RFC 9110 section 10.1.1)
        super().on_headers_complete()  # raises if the URL is none
        self._in_body = True
        self._cycles = [cycle for cycle in (*self._cycles, self.cycle) if not cycle.response_complete]

    def on_body(self, body: bytes) -> None:
        super().on_body(body)
        self.body_received()

    def on_message_complete(self) -> None:
        if self._offers_upgrade():
            return
        self._in_body = False
        super().on_message_complete()
        self.body_complete()

    # -- requests and responses ----------------------------------------------------------------------------

    @property
    def in_body(self) -> bool:
        """Whether a request's headers are complete and its body is not."""
        return self._in_body

    @property
    def pipelined(self) -> int:
        """How many requests wait until those before them are answered."""
        return len(self.pipeline)

    @property
    def is_unanswered(self) -> bool:
        """Whether the newest request has no complete response yet."""
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def is_answering(self) -> bool:
        """Whether a response has begun and is not complete."""
        cycle = self._answering
        return cycle is not None and cycle.response_started and not cycle.response_complete

    @property
    def is_chunked(self) -> bool:
        """Whether the response that is under way is sent in chunks."""
        return self.is_answering and bool(self._answering.chunked_encoding)

    @property
    def is_response_due(self) -> bool:
        """Whether a request that has arrived whole has no complete response yet."""
        waiting = [cycle for cycle in self._cycles if not cycle.response_complete]
        return bool(waiting) and not (self._in_body and waiting == [self.cycle])

    def drop_incomplete(self) -> None:
        """Forget the newest request if its body is not complete. Another one is being answered."""
        if self._in_body:
            self._in_body = False
            self.pipeline.popleft()
            self._cycles.remove(self.cycle)
            self.cycle = self._cycles[-1]

    def abandon_requests(self) -> None:
        """Tell whoever answers the client's requests that it has left. Do not begin those that wait."""
        self.pipeline.clear()
        for cycle in self._cycles:
            cycle.disconnected = True
            cycle.waiting_for_100_continue = False  # our side may be closed, and uvicorn would write to it nevertheless
            cycle.message_event.set()

    @property
    def common_headers(self) -> Sequence[tuple[bytes, bytes]]:
        """The headers of every response: its date."""
        return self.server_state.default_headers

    @property
    def _answering(self) -> RequestResponseCycle:
        """The request that is being answered: the first without a complete response, or else the last there was."""
        return next((cycle for cycle in self._cycles if not cycle.response_complete), self.cycle)

    def keep_open(self) -> bool:
        """Do not close the connection when the response that is under way is complete. Return whether there is one."""
        cycle = self._answering
        if cycle is None:
            return False
        cycle.keep_alive = True
        return True

    def join_head(self) -> None:
        """Send the head of the response that is under way together with the beginning of its body.

        That has to follow, and not be empty. uvicorn would write the two one after the other, which costs a system call
        and a packet more.
        """
        if (cycle := self._answering) is not None and not cycle.response_started:
            cycle.transport = cast(asyncio.Transport, _HeadJoiner(cycle.transport))

    def write_body(self, data: Bytes) -> None:
        """Write some of the response's body as the server's `send` does, but without copying it; not its end."""
        cycle = self._answering
        if cycle.chunked_encoding:
            self.transport.writelines((b"%x\r\n" % len(data), data, b"\r\n"))
        else:
            cycle.expected_content_length -= len(data)
            self.transport.write(data)

    async def wait_until_writable(self) -> None:
        await self.flow.drain()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        super()._start_asgi_task(cycle, partial(self._answer, cycle, app))

    async def _answer(self, cycle: RequestResponseCycle, app: Any, scope: Any, receive: Any, send: Any) -> None:
        async def send_now(message: Any) -> None:
            if message["type"] == "http.response.start":
                cycle.default_headers = self.server_state.default_headers  # those of now: they have the date
            elif not (message.get("more_body", False) or cycle.keep_alive) and self._may_be_sending(cycle):
                self._is_last = cycle.keep_alive = True  # or `send` would close
            await send(message)

        try:
            await app(scope, receive, send_now)
        finally:
            cycle.default_headers = self.server_state.default_headers  # uvicorn may have to send a 500

    def _may_be_sending(self, cycle: RequestResponseCycle) -> bool:
        """Return whether the client of this request may still be sending: the rest of it, or bytes behind it.

        Not if it is a download: `Delivery` reads what its client still sends. Over TLS we cannot close our side only,
        and a client that has sent everything may wait for us to close.
        """
        method = cycle.scope["method"]
        if method == "GET":
            return False
        if self._in_body or self._is_faulty or cycle is not self.cycle:
            return True
        is_tls = self.transport.get_extra_info("sslcontext") is not None
        return not is_tls and method not in ("HEAD", "DELETE", "OPTIONS")

    def on_response_complete(self) -> None:
        is_idle = not self.pipeline
        if self._is_last:
            self.last_response_complete()
            return
        super().on_response_complete()
        self.response_complete(is_idle=is_idle)

    def cancel_keep_alive_timer(self) -> None:
        """Do not close the connection for being idle."""
        self._unset_keepalive_if_required()

    # -- reading -------------------------------------------------------------------------------------------

    @property
    def is_read(self) -> bool:
        """Whether the client is being read."""
        return not self.flow.read_paused

    @property
    def untaken(self) -> int:
        """Bytes of the body that were received and have not been taken."""
        direct = self._direct.intake.untaken if self._direct is not None else 0
        return direct + (len(self.cycle.body) if self.cycle is not None else 0)

    def pause_reading(self) -> None:
        self.flow.pause_reading()

    def resume_reading(self) -> None:
        self.flow.resume_reading()

    def receive_into(self, intake: BodyIntake) -> bool:
        """Receive the rest of the newest request's body straight into the intake, after what the parser has kept.

        Return False if the connection is closing, or if the parser had the rest.
        """
        if self.transport.is_closing():
            return False
        kept, self.cycle.body = bytes(self.cycle.body), bytearray()
        intake.add(kept)
        if not intake.missing:
            return False
        self._direct = _DirectReceiver(self, intake)
        self._receive_by(self._direct)
        return True

    def stop_receiving(self, missing: int) -> None:
        """Receive by way of the parser again: the rest of this body, `missing` bytes, and then the next request."""
        if self._discard is not None:
            return
        self._direct = None
        if not self.transport.is_closing():
            self._receive_by(self)
        # The old parser would wait for a body that it has not seen.
        self.parser = self._new_parser()
        if not missing:
            self.on_message_complete()
            return
        self._is_preparing = True
        self.parser.feed_data(b"PUT / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % missing)
        self._is_preparing = False

    def discard_the_rest(self, discard: Discard) -> None:
        """Close our side of the connection if that is possible, and receive into the discard until it closes. Over TLS,
        our side cannot be closed alone."""
        self.cancel_keep_alive_timer()
        self.abandon_requests()
        for cycle in self._cycles:
            cycle.body = bytearray()
        self._discard = discard
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._direct = _DirectReceiver(self, discard)
        self._receive_by(self._direct)

    def _receive_by(self, protocol: asyncio.BaseProtocol) -> None:
        self.transport.pause_reading()  # or uvloop would go on to read as for the protocol before
        self.transport.set_protocol(protocol)
        self.flow.read_paused = False
        self.transport.resume_reading()


def _address(transport: asyncio.BaseTransport, name: str) -> tuple[str, int] | None:
    """Return the host and the port of one end of the connection; None if it is no TCP connection."""
    address = transport.get_extra_info(name)
    return address[:2] if isinstance(address, tuple) else None


class _HeadJoiner:
    """A transport that keeps what is written first, and sends it with what is written next."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head: bytes | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if self._head is None:
            self._head = data
            return
        self._transport.writelines([self._head, data] if self._head else [data])
        self._head = b""


class _DirectReceiver(asyncio.BufferedProtocol):
    """In the place of `HttpProtocol` while a body streams: from the kernel straight into its intake, or a discard."""

    def __init__(self, http: HttpProtocol, intake: BodyIntake | Discard) -> None:
        self.intake = intake
        self._http = http

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.intake.room()

    def buffer_updated(self, nbytes: int) -> None:
        self.intake.note_received(nbytes)

    def eof_received(self) -> None:
        self._http.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._http.connection_lost(exc)

    def pause_writing(self) -> None:
        self._http.pause_writing()

    def resume_writing(self) -> None:
        self._http.resume_writing()


class SignalServer(uvicorn.Server):
    """uvicorn's server, whose signals go to `on_signal`."""

    def on_started(self) -> None:
        """Called when the server has started."""

    def on_signal(self, sig: int) -> None:
        """Called in the event loop for each signal after the start. Call `exit` when it is time to."""

    def exit(self) -> None:
        """Stop serving."""
        self.should_exit = True

    async def startup(self, sockets: Any = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets=sockets)
        self.on_started()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle signals while serving, and ignore them afterwards: the process is at its end, and one more must not
        turn its exit status into a failure."""
        for sig in HANDLED_SIGNALS:
            signal.signal(sig, self.handle_exit)
        try:
            yield
        finally:
            for sig in HANDLED_SIGNALS:
                signal.signal(sig, signal.SIG_IGN)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.started:
            self._loop.call_soon_threadsafe(self.on_signal, sig)
        else:
            self.exit()
