"""From the client's bytes to requests: the parser, and what it calls."""

from itertools import chain
from typing import Any
from urllib.parse import unquote

import httptools

from relay.errors import Error, Problem
from relay.server.uvicorn_adapter.base import Head
from relay.server.uvicorn_adapter.cycle import Cycle
from relay.server.uvicorn_adapter.requests import HttpRequests


class HttpParsing(HttpRequests):
    """The part of `HttpProtocol` that makes requests of the client's bytes, and has the application answer them."""

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

    # -- called by the parser ------------------------------------------------------------------------------

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
            on_response=self.complete,
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
