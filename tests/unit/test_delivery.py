"""Whether a client has everything: what could be missed between two looks at its socket."""

import asyncio
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from relay import delivery
from relay.connection import Connection
from relay.delivery import Delivery


class Transport:
    """A server's transport that has nothing left to write."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

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
            connection._transport = Transport(server)
            yield connection


async def test_the_last_acknowledgement_may_come_right_after_a_look(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is acknowledged does not change any more, and nothing else will happen."""
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
