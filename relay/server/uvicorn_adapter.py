"""The only module that uses what is private or undocumented in uvicorn, httptools and uvloop.

`HttpProtocol` is uvicorn's HTTP/1.1 protocol behind an interface of our own: hooks that `protocol.Protocol` overrides,
and operations that it and `Connection` call. `Cycle` is one request, and writes its response. `SignalServer` does for
uvicorn's server what `HttpProtocol` does for its protocol. Each attribute and each behaviour that is relied on here has
a test in `tests/contract/test_uvicorn.py`, which says what breaks if it changes.
"""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from types import FrameType
from typing import Any, NamedTuple, cast
from urllib.parse import unquote

import httptools
import uvicorn
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import HANDLED_SIGNALS

from relay.buffers import Bytes
from relay.errors import Error, Problem
from relay.server.discard import Discard
from relay.server.intake import BodyIntake
from relay.server.listening import Crowd

#: Statuses whose responses have no body (RFC 9110 sections 15.3.5 and 15.4.5).
_WITHOUT_BODY = (204, 304)
#: All control characters but the tab: none may be in a header.
_CONTROLS = bytes(code for code in (*range(32), 127) if code != ord("\t"))


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
    cycle: "Cycle"
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
        self._cycles: list[Cycle] = []
        #: Whether a request's headers are complete and its body is not.
        self._in_body = False
        #: Whether the parser is being told about a body whose beginning it has not seen.
        self._is_preparing = False
        #: What receives in the place of this protocol.
        self._direct: _DirectReceiver | None = None
        #: Whether something was received that is no request.
        self._is_faulty = False
        #: What throws away all that the client still sends.
        self._discard: Discard | None = None
        self.extensions = {}
        self.opened(self.app_state)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._discard is not None:
            self._discard.end()
        self.abandon_requests()  # uvicorn tells only the last, and then answers the others on a closed connection
        self._direct = None  # which refers to this protocol
        self.closed(exc)

    def shutdown(self) -> None:
        if self._discard is not None:
            self._discard.hurry()
        else:
            super().shutdown()

    def eof_received(self) -> None:
        self.tls_closed()

    def data_received(self, data: bytes) -> None:
        if self._discard is not None:
            self._discard_directly(self._discard)
            self._discard.note_received(len(data))
            return
        self._unset_keepalive_if_required()
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
        self.scope["extensions"] = self.extensions

    def on_headers_complete(self) -> None:
        if self._is_preparing:
            return
        method = self.parser.get_method()
        if method == b"CONNECT":
            raise Problem(Error.NOT_HTTP)  # this is no proxy
        if self._offers_upgrade():
            return  # it comes again without the offer
        version, headers = self.parser.get_http_version(), self.headers
        size = len(self.url) + sum(map(len, chain.from_iterable(headers)))
        self.head_received(Head(version, headers, size))
        self.headers = []  # trailers come there too, and must not pass for headers (RFC 9110 section 6.5.1)
        self._begin_request(method.decode("ascii"), version)
        self._in_body = True
        self._cycles = [cycle for cycle in (*self._cycles, self.cycle) if not cycle.response_complete]

    def _begin_request(self, method: str, version: str) -> None:
        """Complete the scope, and call the application, at once or when all requests before this have their responses.

        As uvicorn does it, but with a `Cycle`.
        """
        url = httptools.parse_url(self.url)  # raises if it is none
        path = url.path.decode("ascii")
        self.scope["method"], self.scope["http_version"] = method, version
        self.scope["path"], self.scope["raw_path"] = unquote(path) if "%" in path else path, url.path
        self.scope["query_string"] = url.query or b""
        is_pipelined = self.is_unanswered
        self.cycle = Cycle(
            self,
            # HTTP/1.0 does not know interim responses (RFC 9110 section 10.1.1).
            expect_100_continue=self.expect_100_continue and version != "1.0",
            keep_alive=version != "1.0" and self.parser.should_keep_alive(),
        )
        if is_pipelined:
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, self.app))
        else:
            self._start_asgi_task(self.cycle, self.app)

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
    def _answering(self) -> "Cycle":
        """The request that is being answered: the first without a complete response, or else the last there was."""
        for cycle in self._cycles:
            if not cycle.response_complete:
                return cycle
        return self.cycle

    def keep_open(self) -> bool:
        """Do not close the connection when the response that is under way is complete. Return whether there is one."""
        cycle = self._answering
        if cycle is None:
            return False
        cycle.keep_alive = True
        return True

    def join_head(self) -> None:
        """Send the head of the response, which has not begun, together with the beginning of its body."""
        if (cycle := self._answering) is not None:
            cycle.joins_head = True

    def write_body(self, data: Bytes) -> None:
        """Write some of the response's body as the server's `send` does, but without copying it; not its end."""
        self._answering.write_body(data)

    async def wait_until_writable(self) -> None:
        if self.flow.write_paused:
            await self.flow.drain()

    def complete(self, cycle: "Cycle") -> None:
        """Go on to the next request, or end the connection. The response of this cycle is complete."""
        if not cycle.keep_alive:
            if self._may_be_sending(cycle):
                self.last_response_complete()
                return
            self.transport.close()
        self.on_response_complete()

    def _may_be_sending(self, cycle: "Cycle") -> bool:
        """Return whether the client of this request may still be sending: the rest of it, or bytes behind it.

        Not if it is a download: `Delivery` reads what its client still sends. Over TLS we cannot close our side only,
        and a client that has sent everything may wait for us to close.
        """
        method = cycle.scope["method"]
        if method == "GET":
            return False
        if self._in_body or self._is_faulty or cycle is not self.cycle:
            return True
        return self.scheme == "http" and method not in ("HEAD", "DELETE", "OPTIONS")

    def on_response_complete(self) -> None:
        is_idle = not self.pipeline
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
        our side cannot be closed alone.

        Most clients send nothing more. So the discard receives directly only if something comes.
        """
        self.cancel_keep_alive_timer()
        self.abandon_requests()
        for cycle in self._cycles:
            cycle.body = bytearray()
        self._discard = discard
        if self.transport.can_write_eof():
            self.transport.write_eof()
        if self._direct is not None:
            self._discard_directly(discard)
        else:
            self.flow.resume_reading()

    def _discard_directly(self, discard: Discard) -> None:
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


class Cycle(RequestResponseCycle):
    """One request and its response. It writes the response itself, in fewer steps than uvicorn's, and copies less."""

    def __init__(self, http: HttpProtocol, *, expect_100_continue: bool, keep_alive: bool) -> None:
        super().__init__(
            scope=http.scope,
            transport=http.transport,
            flow=http.flow,
            logger=http.logger,
            access_logger=http.access_logger,
            access_log=False,
            default_headers=[],  # `send` takes those of the moment when the response begins: they have the date
            message_event=asyncio.Event(),
            expect_100_continue=expect_100_continue,
            keep_alive=keep_alive,
            on_response=http.complete,  # uvicorn lets go of it in the end, so that the two do not keep each other
        )
        #: Whether the head of the response waits for the beginning of its body. Two writes would be two system calls,
        #: and two packets.
        self.joins_head = False
        self._server_state = http.server_state
        #: The head of the response, until it is written.
        self._head = b""

    async def send(self, message: Any) -> None:
        """The server's `send` of ASGI: begin the response, go on with it, or complete it."""
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        is_start = message["type"] == "http.response.start"
        if is_start is self.response_started or self.response_complete:
            raise RuntimeError(f"{message['type']} is not what may be sent now")
        if is_start:
            self._begin(message["status"], message.get("headers", ()))
            return
        is_last = not message.get("more_body", False)
        self.write_body(message.get("body", b""), is_last=is_last)
        if is_last:
            self._complete()

    def _begin(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        self.response_started, self.waiting_for_100_continue = True, False
        fields = [*self._server_state.default_headers, *headers]
        by_name = dict(fields)
        if by_name.get(b"connection") == b"close":
            self.keep_alive = False
        elif not self.keep_alive:
            fields.append((b"connection", b"close"))
        length = by_name.get(b"content-length")
        self.chunked_encoding = length is None and self.scope["method"] != "HEAD" and status not in _WITHOUT_BODY
        self.expected_content_length = int(length or 0)
        if self.chunked_encoding:
            fields.append((b"transfer-encoding", b"chunked"))
        lines = [STATUS_LINE[status].rstrip(), *map(b": ".join, fields)]
        self._head = b"\r\n".join([*lines, b"", b""])
        if len(self._head) - len(self._head.translate(None, _CONTROLS)) > 2 * (len(lines) + 1):
            raise RuntimeError("a header has a control character")  # besides those that end each line
        if not self.joins_head:
            self.transport.write(self._head)
            self._head = b""

    def write_body(self, data: Bytes, *, is_last: bool = False) -> None:
        """Write some of the body, framed as its head says."""
        pieces: list[Bytes] = [self._head] if self._head else []
        self._head = b""
        if self.scope["method"] == "HEAD":
            self.expected_content_length = 0
        elif self.chunked_encoding:
            pieces += [b"%x\r\n" % len(data), data, b"\r\n"] if data else []
            pieces += [b"0\r\n\r\n"] if is_last else []
        elif data:
            self.expected_content_length -= len(data)
            pieces.append(data)
        if self.expected_content_length < 0:
            raise RuntimeError("a response is longer than its Content-Length")
        if pieces:
            self.transport.writelines(pieces)

    def _complete(self) -> None:
        if self.expected_content_length:
            raise RuntimeError("a response is shorter than its Content-Length")
        self.response_complete = True
        self.message_event.set()
        self.on_response(self)


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
    """uvicorn's server, whose signals go to `on_signal`, and which lets in a crowd of clients faster."""

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
        self._crowds = [Crowd(listener, self._serve_too) for listener in sockets or ()]
        self.on_started()

    async def shutdown(self, sockets: Any = None) -> None:
        for crowd in self._crowds:
            await crowd.close()
        await super().shutdown(sockets=sockets)

    async def _serve_too(self, listener: socket.socket) -> asyncio.AbstractServer:
        """Serve one more listener, as uvicorn serves those that it has been given."""
        config = self.config
        return await self._loop.create_server(self._new_protocol, sock=listener, ssl=config.ssl, backlog=config.backlog)

    def _new_protocol(self) -> asyncio.BaseProtocol:
        config: Any = self.config  # `http_protocol_class` is declared as the type of any protocol
        return cast(
            asyncio.BaseProtocol,
            config.http_protocol_class(
                config=config, server_state=self.server_state, app_state=self.lifespan.state, _loop=self._loop
            ),
        )

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
