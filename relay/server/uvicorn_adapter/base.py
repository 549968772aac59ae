"""What the parts of `HttpProtocol` share: its hooks, its state, and how a connection is set up."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from relay.server.discard import Discard
from relay.server.uvicorn_adapter.cycle import Cycle
from relay.server.uvicorn_adapter.direct import DirectReceiver


class Head(NamedTuple):
    """What a request says about itself before its body."""

    version: str
    #: With names in lower case.
    headers: Sequence[tuple[bytes, bytes]]
    #: Bytes of the URL and of the names and values of the headers.
    size: int


class HttpBase(HttpToolsProtocol):
    """The hooks and the state of `HttpProtocol`."""

    transport: asyncio.Transport
    #: The newest request; None before the first.
    cycle: Cycle
    #: What every request finds among its scope's extensions.
    extensions: dict[str, Any]

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
        self._direct: DirectReceiver | None = None
        #: Whether something was received that is no request.
        self._is_faulty = False
        #: What throws away all that the client still sends.
        self._discard: Discard | None = None
        self.extensions = {}
        self.opened(self.app_state)


def _address(transport: asyncio.BaseTransport, name: str) -> tuple[str, int] | None:
    """Return the host and the port of one end of the connection; None if it is no TCP connection."""
    address = transport.get_extra_info(name)
    return address[:2] if isinstance(address, tuple) else None
