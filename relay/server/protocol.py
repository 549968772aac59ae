"""What relay adds to uvicorn's HTTP/1.1: a `Connection` for every scope, and limits on what a client may send, and for
how long, before its request is complete."""

from asyncio import TimerHandle
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

from relay.errors import Error, Problem
from relay.server.connection import EXTENSION, Connection
from relay.server.discard import Discard
from relay.server.framing import check_framing
from relay.server.headers import SAFE_HEADERS
from relay.server.tcp import Hangups
from relay.server.uvicorn_adapter import Head, HttpProtocol
from relay.settings import Settings

#: The keys of the `Hangups`, the `Settings` and the node's id in the lifespan's state.
HANGUPS, SETTINGS, NODE = "hangups", "settings", "node"
#: Maximum bytes in a row that are not body: of a request's headers, of chunk extensions, of trailers. The parser joins
#: each piece of an incomplete header to the pieces before it, so an endless header would take a time that grows with
#: the square of its length.
_HEAD_MAXIMUM = 64 * 1024
#: Maximum bytes that are read and thrown away of a client that sends no request, or goes on with one that has its
#: response although the connection stays open. They are read so that the client gets to see the response: closing with
#: bytes unread makes the client's kernel throw it away. For uploads, `discard` reads more than that.
_DISCARD_MOST = 8 * 1024 * 1024
#: Maximum number of requests that may be sent before the first of them is answered.
_PIPELINE_MAXIMUM = 16


class Protocol(HttpProtocol):
    """One client's connection."""

    connection: Connection
    settings: Settings

    def opened(self, state: Mapping[str, Any]) -> None:
        hangups: Hangups = state[HANGUPS]
        self.settings = state[SETTINGS]
        self._node: str = state[NODE]
        self.connection = Connection(self, hangups)
        self.extensions[EXTENSION] = self.connection
        #: Bytes since the client last sent something of use.
        self._useless = 0
        self._hangups = hangups
        #: Why the client cannot be understood any more, while requests before that have no response yet.
        self._problem: Problem | None = None
        self._timer: TimerHandle | None = None
        self._start_timer(self.settings.header_timeout, self._head_is_late)

    def closed(self, error: Exception | None) -> None:
        self._cancel_timer()
        self.connection.lost(error)

    def tls_closed(self) -> None:
        self.connection.note_tls_closed()

    # -- requests ------------------------------------------------------------------------------------------

    def received(self, data: bytes) -> None:
        self._useless += len(data)
        if self._problem is not None:
            if self._useless > _HEAD_MAXIMUM:
                self.connection.pause_reading()
            return
        if (problem := self.parse(data)) is not None:
            self._fail(problem)
        elif self.in_body and not self.is_unanswered:
            if self._useless > _DISCARD_MOST:
                self.transport.close()
        elif self._useless > _HEAD_MAXIMUM:
            self._fail(Problem(Error.HEADER_TOO_LARGE, most=_HEAD_MAXIMUM))

    def head_received(self, head: Head) -> None:
        if head.version not in ("1.0", "1.1"):
            raise Problem(Error.HTTP_VERSION)
        if head.size > _HEAD_MAXIMUM:
            raise Problem(Error.HEADER_TOO_LARGE, most=_HEAD_MAXIMUM)
        # RFC 9112 section 3.2: with two of them, somebody who passes the request on may take it for another one.
        hosts = [name for name, _ in head.headers].count(b"host")
        if hosts > 1 or (head.version == "1.1" and not hosts):
            raise Problem(Error.NOT_HTTP)
        check_framing(head.version, head.headers)
        self._cancel_timer()
        self._useless = 0
        if self.pipelined >= _PIPELINE_MAXIMUM:
            self.transport.abort()

    def body_received(self) -> None:
        if self.is_unanswered:
            self._useless = 0
            self.connection.probe.read_further()

    def body_complete(self) -> None:
        self._useless = 0

    # -- the end of one request, and the wait for the next --------------------------------------------------

    def response_complete(self, *, is_idle: bool) -> None:
        if self.connection.is_held:
            self.cancel_keep_alive_timer()
        elif not is_idle or self.transport.is_closing():
            return
        elif self._problem is not None:
            self._refuse(self._problem)
        else:
            self._start_timer(self.settings.header_timeout, self._head_is_late)

    def _head_is_late(self) -> None:
        if self._useless and not self.in_body:
            self._refuse(Problem(Error.HEADER_TIMEOUT, seconds=self.settings.header_timeout))
        else:
            self.transport.close()  # it asked for nothing, or it has its response and did not complete its request

    def last_response_complete(self) -> None:
        self._discard_the_rest()

    def _fail(self, problem: Problem) -> None:
        """Refuse something that is no request, or a body that is none: once all whole requests before it have their
        responses (RFC 9112 section 9.3.2)."""
        if self.is_response_due:
            self.drop_incomplete()
            self._problem = problem
        else:
            self._refuse(problem)

    def _refuse(self, problem: Problem) -> None:
        """Respond to something that is no request, or to one whose body is faulty, and end the connection.

        In the middle of the response to that request, just abort: whatever was written then would become a part of
        that response. If it has its response, it gets no second one.
        """
        if self.is_answering:
            self.transport.abort()
            return
        if self.in_body and not self.is_unanswered:
            self._discard_the_rest()
            return
        self._write_response(problem)
        if self.is_unanswered:
            self.abandon_requests()
            self.connection.lost(None)
        self._discard_the_rest(most=_DISCARD_MOST if self.cycle is None else None)

    def _write_response(self, problem: Problem) -> None:
        content = problem.line.encode() + b"\n"
        common = {name.decode(): value.decode() for name, value in self.common_headers}
        headers = (
            common
            | SAFE_HEADERS
            | {
                "relay-node": self._node,
                "content-type": "text/plain; charset=utf-8",
                "content-length": str(len(content)),
                "connection": "close",
            }
        )
        lines = [f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self.transport.write("\r\n".join([*lines, "", ""]).encode("latin-1") + content)

    def _discard_the_rest(self, *, most: int | None = None) -> None:
        """End the connection, but go on reading what its client sends, `most` bytes at most, so that it gets to see its
        response."""
        self._cancel_timer()
        discard = Discard(self.transport, self._hangups.discards, most=most)
        if self._hangups.discards.admit(discard):
            self.discard_the_rest(discard)
        else:
            discard.end()
            self.transport.close()

    def _start_timer(self, seconds: float, callback: Callable[[], None]) -> None:
        self._cancel_timer()
        self._timer = self.loop.call_later(seconds, callback)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
