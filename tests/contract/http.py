"""A connection of uvicorn, or of the adapter, without a network."""

from typing import Any, cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from relay.server import uvicorn_adapter


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Never called: the tests call `receive` and `send` themselves."""


class Transport:
    """Keeps what is written; nothing is sent."""

    def __init__(self) -> None:
        self.written = b""
        self.writes = 0
        self.is_closed = False

    def get_extra_info(self, name: str) -> Any:
        return None

    def is_closing(self) -> bool:
        return self.is_closed

    def write(self, data: bytes) -> None:
        self.written += data
        self.writes += 1

    def writelines(self, pieces: list[bytes]) -> None:
        self.write(b"".join(pieces))

    def close(self) -> None:
        self.is_closed = True

    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...


def connect(kind: type[HttpToolsProtocol] = HttpToolsProtocol) -> tuple[HttpToolsProtocol, Transport]:
    """Return a protocol that has just been connected."""
    config = uvicorn.Config(app, ws="none", lifespan="off", log_config=None)
    http = kind(config, ServerState(), {"key": "value"})
    cast(Any, http)._start_asgi_task = lambda cycle, app: None
    transport = Transport()
    http.connection_made(cast(Any, transport))
    return http, transport


class Ours(uvicorn_adapter.HttpProtocol):
    """The adapter, which does nothing but serve."""

    is_last = False

    def received(self, data: bytes) -> None:
        assert self.parse(data) is None

    def last_response_complete(self) -> None:
        self.is_last = True


def request(http: HttpToolsProtocol, data: bytes) -> RequestResponseCycle:
    http.data_received(data)
    return http.cycle


PUT = b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n"
GET = b"GET / HTTP/1.1\r\nHost: x\r\n"
