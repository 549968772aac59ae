"""Whether a client has everything: cases that could be missed between two looks at its socket."""

import asyncio
import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from starlette.types import Message, Scope

from relay.api.download_response import ResponseSink
from relay.api.exchange import Exchange, Services
from relay.errors import ClientGone
from relay.server import delivery
from relay.server.connection import EXTENSION, Connection
from relay.server.delivery import Delivery
from relay.settings import Settings


class Transport:
    """A server's transport with nothing left to write."""

    def __init__(self, sock: socket.socket, *, is_closing: bool = False) -> None:
        self._socket = sock
        self._is_closing = is_closing

    def is_closing(self) -> bool:
        return self._is_closing

    def get_extra_info(self, name: str) -> Any:
        return self._socket if name == "socket" else None

    def get_write_buffer_size(self) -> int:
        return 0


@pytest.fixture
def connection() -> Iterator[Connection]:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as client:
        server, _ = listener.accept()
        with server, client:
            connection = Connection()
            connection.transport = connection._transport = Transport(server)
            yield connection


async def test_the_last_acknowledgement_may_come_right_after_a_look(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The acknowledged bytes do not change any more, and nothing else will happen."""
    left = iter([1])
    monkeypatch.setattr(delivery, "unacknowledged", lambda sock: next(left, 0))
    with Delivery(connection) as last:
        async with asyncio.timeout(20):
            assert await last.acknowledged(patience=3600)


async def test_a_client_that_takes_nothing_more_loses_patience(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "unacknowledged", lambda sock: 1)
    with Delivery(connection) as last:
        assert not await last.acknowledged(patience=0.1)


async def test_a_client_that_has_left_is_not_probed(connection: Connection) -> None:
    connection._protocol = cast(Any, SimpleNamespace(is_read=False, is_answering=False, untaken=0))
    connection._transport = None  # anything done to it would raise
    connection.lost(None)
    connection.probe.ask(0.0)
    assert not connection.probe.look(0.0)


async def test_nothing_is_written_to_a_closing_transport_which_would_swallow_it(connection: Connection) -> None:
    """The client has closed after taking everything so far, and nobody has reported yet that it is lost."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        raise AssertionError

    connection.transport = connection._transport = Transport(
        connection.transport.get_extra_info("socket"), is_closing=True
    )
    scope: Scope = {"extensions": {EXTENSION: connection}, "headers": [], "http_version": "1.1"}
    relay = SimpleNamespace(settings=Settings(redis_url=""))
    services = cast(Services, SimpleNamespace(relay=relay))
    sink = ResponseSink(Exchange(services, {**scope, "path": "/t/x", "query_string": b""}, receive, send, ""))
    for hand_over in (sink.write, sink.complete):
        with pytest.raises(ClientGone):
            await hand_over(b"last")
    assert not sent
