"""What uvicorn calls a cycle: one request, and the writing of its response."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from relay.buffers import Bytes

#: Statuses whose responses have no body (RFC 9110 sections 15.3.5 and 15.4.5).
_WITHOUT_BODY = (204, 304)
#: All control characters but the tab: none may be in a header.
_CONTROLS = bytes(code for code in (*range(32), 127) if code != ord("\t"))


class Cycle(RequestResponseCycle):
    """One request and its response. It writes the response itself, in fewer steps than uvicorn's, and copies less."""

    def __init__(
        self,
        http: HttpToolsProtocol,
        *,
        expect_100_continue: bool,
        keep_alive: bool,
        on_response: Callable[["Cycle"], None],
    ) -> None:
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
            on_response=on_response,  # uvicorn lets go of it in the end, so that the two do not keep each other
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
