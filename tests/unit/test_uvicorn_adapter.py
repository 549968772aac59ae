"""Requests that offer an upgrade, parsed whole, cut in two at every byte, and byte by byte."""

from collections.abc import Iterable
from typing import Any, cast

import pytest
import uvicorn
from uvicorn.server import ServerState

from relay.server.uvicorn_adapter import Head, HttpProtocol

OFFER = b"Connection: Upgrade\r\nUpgrade: h2c\r\n"
PUT = b"PUT /a HTTP/1.1\r\nHost: x\r\n"
LENGTH = PUT + b"%sContent-Length: 5\r\n\r\nhello"
CHUNKED = PUT + b"%sTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x\r\nlo\r\n0\r\nUpgrade: h2c\r\n\r\n"
GET = b"GET /b HTTP/1.1\r\nHost: x\r\n%s\r\n"


class Transport:
    """Keeps what is written to it; it may be aborted."""

    is_aborted = False
    written = b""

    def write(self, data: bytes) -> None:
        self.written += data

    def get_extra_info(self, name: str) -> Any:
        return None

    def is_closing(self) -> bool:
        return self.is_aborted

    def pause_reading(self) -> None: ...


class Seen(HttpProtocol):
    """Keeps what was parsed."""

    def head_received(self, head: Head) -> None:
        self.heads = [*getattr(self, "heads", []), head]

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        """Nobody answers."""

    def body_complete(self) -> None:
        self.bodies = [*getattr(self, "bodies", []), bytes(self.cycle.body)]


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Never called."""


def parse(pieces: Iterable[bytes]) -> Seen:
    config = uvicorn.Config(app, ws="none", lifespan="off", log_config=None)
    seen = Seen(config, ServerState(), {})
    seen.connection_made(Transport())
    for piece in pieces:
        assert seen.parse(piece) is None
    return seen


@pytest.mark.parametrize("request_", [LENGTH, CHUNKED, GET], ids=["length", "chunked", "none"])
async def test_a_request_with_an_offer_is_the_one_without_it(request_: bytes) -> None:
    """And so is the next one on the connection."""
    plain = parse([request_ % b"" + GET % b""])
    offering = request_ % OFFER + GET % OFFER
    ways = [[offering], [offering[n : n + 1] for n in range(len(offering))]]
    ways += [[offering[:cut], offering[cut:]] for cut in range(1, len(offering))]
    for way in ways:
        seen = parse(way)
        assert seen.bodies == plain.bodies
        assert len(seen.heads) == 2
        for head, wanted in zip(seen.heads, plain.heads, strict=True):
            assert [each for each in head.headers if each[0] != b"connection"] == wanted.headers


async def test_requests_are_not_repeated_on_a_connection_that_was_aborted() -> None:
    """A client may send very many at once."""

    class Aborting(Seen):
        def body_complete(self) -> None:
            super().body_complete()
            cast(Any, self.transport).is_aborted = len(self.bodies) == 3

    config = uvicorn.Config(app, ws="none", lifespan="off", log_config=None)
    aborting = Aborting(config, ServerState(), {})
    aborting.connection_made(Transport())
    assert aborting.parse(GET % OFFER * 100) is None
    assert len(aborting.bodies) == 3


async def test_an_abandoned_request_is_not_told_to_continue() -> None:
    """Our side of the connection may be closed, which makes another write an error."""
    seen = parse([PUT + b"Content-Length: 5\r\nExpect: 100-continue\r\n\r\n"])
    seen.abandon_requests()
    assert await seen.cycle.receive() == {"type": "http.disconnect"}
    assert not cast(Any, seen.transport).written
