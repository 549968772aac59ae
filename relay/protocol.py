"""uvicorn's HTTP/1.1 protocol, and what relay needs beyond it."""

from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from relay.connection import EXTENSION, Connection

#: Where the lifespan's state has the `Hangups`.
HANGUPS = "hangups"
#: Headers that announce a body.
_BODY_HEADERS = {b"content-length", b"transfer-encoding"}


class Protocol(HttpToolsProtocol):
    """uvicorn's protocol, with a `Connection` in every scope."""

    connection: Connection

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.connection = Connection(self, self.app_state.get(HANGUPS))
        #: The request that is answered, and those behind it.
        self._cycles: list[RequestResponseCycle] = []

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {EXTENSION: self.connection}  # type: ignore[dict-item]

    def on_headers_complete(self) -> None:
        # After an Upgrade the parser takes no body: an upload would look whole, and empty.
        if self.parser.should_upgrade() and any(n in _BODY_HEADERS and v != b"0" for n, v in self.headers):
            self.send_400_response("Nothing can be upgraded here: retry without the Upgrade header.")
        else:
            super().on_headers_complete()
            self._cycles = [cycle for cycle in (*self._cycles, self.cycle) if not cycle.response_complete]

    def on_body(self, body: bytes) -> None:
        super().on_body(body)
        self.connection.read_on()

    def send_400_response(self, msg: str) -> None:
        """Refuses what is not HTTP; in the middle of a response nothing may be written into it any more."""
        if self.connection.is_answering:
            self.transport.abort()
        else:
            super().send_400_response(msg)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        for cycle in self._cycles:  # uvicorn tells only the last, and then answers the others on a closed connection
            cycle.disconnected = True
            cycle.message_event.set()
        self.connection.lost(exc)
