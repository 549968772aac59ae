"""uvicorn's HTTP/1.1 protocol, and what relay needs beyond it: a `Connection` for every scope, and bounds on what
a client may send, and for how long, before its request is one."""

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from relay.buffers import Buffer, Bytes
from relay.errors import Error, Problem
from relay.server.connection import EXTENSION, Connection
from relay.server.headers import SAFE_HEADERS
from relay.server.tcp import Hangups, probe_when_silent
from relay.settings import Settings

#: Where the lifespan's state has the `Hangups`, the `Settings` and the node's id.
HANGUPS, SETTINGS, NODE = "hangups", "settings", "node"
#: Headers that announce a body.
_BODY_HEADERS = {b"content-length", b"transfer-encoding"}
#: Bytes that may come in a row without being body: of a request's header, of chunk extensions, of trailers.
#: The parser joins each piece of a header that is not complete to those before, so that an endless one would
#: take a time that grows with the square of its length.
_HEAD_MOST = 64 * 1024
#: Bytes read and thrown away after an answer that came before its request's end, so that the client gets to
#: read it: closing with bytes unread makes the client's kernel throw the answer away.
DRAIN_MOST = 8 * 1024 * 1024
#: Seconds that may take.
DRAIN_SECONDS = 5.0
#: Requests that may be sent before the first of them is answered.
_PIPELINE_MOST = 16


class Protocol(HttpToolsProtocol):
    """One client's connection."""

    connection: Connection
    settings: Settings

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        hangups: Hangups = self.app_state[HANGUPS]
        self.settings = self.app_state[SETTINGS]
        self.connection = Connection(self, hangups)
        #: The request that is answered, and those behind it.
        self._cycles: list[RequestResponseCycle] = []
        probe_when_silent(transport.get_extra_info("socket"))
        #: Bytes since the client last sent something of use.
        self._useless = 0
        #: Bytes of this request's line and header so far.
        self._head = 0
        #: Whether a request's header is complete and its body is not.
        self._in_body = False
        #: Where the rest of this request's body goes without coming by the parser.
        self._pouring: _Pouring | None = None
        self._refused = False
        self._timer: asyncio.TimerHandle | None = None
        self._arm(self.settings.header_timeout, self._head_is_late)

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        super().connection_lost(exc)
        for cycle in self._cycles:  # uvicorn tells only the last, and then answers the others on a closed connection
            cycle.disconnected = True
            cycle.message_event.set()
        self.connection.lost(exc)

    def eof_received(self) -> None:
        self.connection.ended()

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        self._useless += len(data)
        if self._refused:
            if self._useless > DRAIN_MOST:
                self.transport.abort()
            return
        if self._pouring is not None:
            data = self._pass_by_parser(self._pouring, data)
            if not data:
                return
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            return  # nothing is upgraded here: the request is served as if it had not asked
        except httptools.HttpParserError as error:
            cause = error.__context__
            self._refuse(cause if isinstance(cause, Problem) else Problem(Error.NOT_HTTP))
            return
        if self._in_body and self.cycle.response_complete:
            if self._useless > DRAIN_MOST:
                self.transport.close()
        elif self._useless > _HEAD_MOST:
            self._refuse(Problem(Error.HEADER_TOO_LARGE, most=_HEAD_MOST))

    # -- called by the parser; what these raise comes out of feed_data -------------------------------------

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head = 0
        self.scope["extensions"] = {EXTENSION: self.connection}  # type: ignore[dict-item]

    def on_url(self, url: bytes) -> None:
        self._head += len(url)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        # Trailers come here too, and must not pass for headers (RFC 9110 section 6.5.1).
        if not self._in_body:
            self._head += len(name) + len(value)
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        version = self.parser.get_http_version()
        if version not in ("1.0", "1.1"):
            raise Problem(Error.HTTP_VERSION)
        if self._head > _HEAD_MOST:
            raise Problem(Error.HEADER_TOO_LARGE, most=_HEAD_MOST)
        # RFC 9112 section 3.2: two of them are how a request is taken for another's by whoever passes it on.
        hosts = sum(name == b"host" for name, _ in self.headers)
        if hosts > 1 or (version == "1.1" and not hosts):
            raise Problem(Error.NOT_HTTP)
        # After an Upgrade the parser takes no body: an upload would look whole, and empty.
        if self.parser.should_upgrade() and any(n in _BODY_HEADERS and v != b"0" for n, v in self.headers):
            raise Problem(Error.NO_UPGRADE)
        if version == "1.0":
            self.expect_100_continue = False  # it does not know interim answers (RFC 9110 section 10.1.1)
        self._disarm()
        self._useless, self._in_body = 0, True
        super().on_headers_complete()
        self._cycles = [cycle for cycle in (*self._cycles, self.cycle) if not cycle.response_complete]
        if len(self.pipeline) > _PIPELINE_MOST:
            self.transport.abort()

    def on_body(self, body: bytes) -> None:
        super().on_body(body)
        if not self.cycle.response_complete:
            self._useless = 0
            self.connection.read_on()

    def on_message_complete(self) -> None:
        self._useless, self._in_body = 0, False
        super().on_message_complete()

    @property
    def answered(self) -> Any:
        """The request that is being answered, the first whose answer is not complete; or else the last there was."""
        return next((cycle for cycle in self._cycles if not cycle.response_complete), self.cycle)

    # -- a body that does not come by the parser ------------------------------------------------------------

    def pour(self, buffer: Buffer, size: int, arrived: Callable[[], None]) -> None:
        """Lets the next `size` bytes, the rest of this request's body, be received straight into the buffer.

        Calls `arrived` whenever some have been, and when the connection is lost.  `pour_no_more` ends it.
        """
        self._pouring = _Pouring(self, buffer, size, arrived)
        self._receive_by(self._pouring)
        if buffer.full:
            self.flow.pause_reading()

    @property
    def untaken(self) -> int:
        """Bytes of the body that have been received and not been taken."""
        poured = self._pouring.untaken if self._pouring is not None else 0
        return poured + (len(self.cycle.body) if self.cycle is not None else 0)

    def pour_no_more(self) -> None:
        """What is left of that body comes as any does."""
        if self._pouring is not None and not self.transport.is_closing():
            self._receive_by(self)

    def body_is_complete(self) -> None:
        """Called when all of a body has come that the parser did not see."""
        self._pouring = None
        self.parser = httptools.HttpRequestParser(self)  # the old one would wait for that body for ever
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self.on_message_complete()

    def _receive_by(self, protocol: asyncio.BaseProtocol) -> None:
        self.transport.pause_reading()  # or uvloop would go on to read as for the protocol before
        self.transport.set_protocol(protocol)
        self.flow.read_paused = False
        self.transport.resume_reading()

    def _pass_by_parser(self, pouring: "_Pouring", data: bytes) -> bytes:
        """Takes what belongs to a body that the parser did not see the beginning of; answers what comes after it."""
        body, rest = data[: pouring.left], data[pouring.left :]
        pouring.left -= len(body)
        self.on_body(body)
        if not pouring.left:
            self.body_is_complete()
        return rest

    def write_body(self, data: Bytes) -> None:
        """Writes some of the response's body, as the server's `send` does, but without copying it; not its end."""
        answered = self.answered
        if answered.chunked_encoding:
            self.transport.writelines((b"%x\r\n" % len(data), data, b"\r\n"))
        else:
            answered.expected_content_length -= len(data)
            self.transport.write(data)

    # -- the end of one request, and the wait for the next --------------------------------------------------

    def on_response_complete(self) -> None:
        waits = not self.pipeline
        super().on_response_complete()
        if self.connection.is_held:
            self._unset_keepalive_if_required()
        elif waits and not self.transport.is_closing():
            self._arm(self.settings.header_timeout, self._head_is_late)

    def _head_is_late(self) -> None:
        if self._useless and not self._in_body:
            self._refuse(Problem(Error.HEADER_TIMEOUT, seconds=self.settings.header_timeout))
        else:
            self.transport.close()  # it asked for nothing, or did not end what is answered already

    def _refuse(self, problem: Problem) -> None:
        """Answers what is no request; in the middle of a response nothing may be written into it any more."""
        if self.connection.is_answering:
            self.transport.abort()
            return
        content = problem.line.encode() + b"\n"
        headers = SAFE_HEADERS | {
            "relay-node": self.app_state[NODE],
            "content-type": "text/plain; charset=utf-8",
            "content-length": str(len(content)),
            "connection": "close",
        }
        lines = [f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self.transport.write("\r\n".join([*lines, "", ""]).encode("latin-1") + content)
        if self.cycle is not None and not self.cycle.response_complete:
            self.transport.close()  # the request that is under way ends with it
            return
        self._refused = True
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._arm(DRAIN_SECONDS, self.transport.abort)

    def _arm(self, seconds: float, callback: Callable[[], None]) -> None:
        self._disarm()
        self._timer = self.loop.call_later(seconds, callback)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _Pouring(asyncio.BufferedProtocol):
    """In the place of `Protocol` while a body of known length streams: from the kernel into the upload's buffer.

    By way of uvicorn and its parser each byte was copied four times, and each piece woke a task.
    """

    def __init__(self, http: Protocol, buffer: Buffer, left: int, arrived: Callable[[], None]) -> None:
        #: Bytes of the body that are still to come.
        self.left = left
        self._http = http
        self._buffer = buffer
        self._arrived = arrived

    @property
    def untaken(self) -> int:
        """Bytes that have been received and not been taken."""
        return len(self._buffer)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer.room(self.left)

    def buffer_updated(self, nbytes: int) -> None:
        self._buffer.fill(nbytes)
        self.left -= nbytes
        if self._buffer.full:
            self._http.flow.pause_reading()
            self._http.connection.read_on()
        if not self.left:
            self._http.pour_no_more()
            self._http.body_is_complete()
        self._arrived()

    def eof_received(self) -> None:
        self._http.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._http.connection_lost(exc)
        self._arrived()

    def pause_writing(self) -> None:
        self._http.pause_writing()

    def resume_writing(self) -> None:
        self._http.resume_writing()
