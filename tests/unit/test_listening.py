"""How many clients a node lets in at a time."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import pytest
import uvloop

from relay.server.listening import listen, repeated

#: Number of clients that connect at once.
CLIENTS = 64


@pytest.fixture
def listeners() -> Iterator[list[socket.socket]]:
    found = repeated(listen("127.0.0.1", 0, backlog=CLIENTS))
    yield found
    for listener in found:
        listener.close()


async def rounds_until_served(listeners: list[socket.socket]) -> int:
    """Return how many rounds of the event loop it takes until all clients that have connected are let in."""
    loop, served = asyncio.get_running_loop(), list[object]()

    class Served(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            served.append(transport)
            transport.close()

    with contextlib.ExitStack() as stack:
        for _ in range(CLIENTS):  # the kernel completes the connections, and holds them in the queue
            stack.enter_context(socket.create_connection(listeners[0].getsockname()))
        servers = [await loop.create_server(Served, sock=listener) for listener in listeners]
        rounds = 0
        while len(served) < CLIENTS:
            rounds += 1
            await asyncio.sleep(0)
        for server in servers:
            server.close()
            await server.wait_closed()
    return rounds


def test_clients_that_come_at_once_are_let_in_within_a_few_rounds(listeners: list[socket.socket]) -> None:
    """With one socket for each address it would take a round for each client, and rounds are long with many streams."""
    assert uvloop.run(rounds_until_served(listeners)) <= CLIENTS / 8


def test_libuv_lets_in_one_client_of_each_socket_in_a_round(listeners: list[socket.socket]) -> None:
    """If this fails, a new libuv lets in several clients in one round, and `repeated` is not needed any more."""
    assert uvloop.run(rounds_until_served(listeners[:1])) >= CLIENTS


def test_all_sockets_of_an_address_share_one_queue(listeners: list[socket.socket]) -> None:
    assert {listener.getsockname() for listener in listeners} == {listeners[0].getsockname()}
    with socket.create_connection(listeners[0].getsockname()):
        accepted, _ = listeners[-1].accept()
        accepted.close()


def test_the_kernel_probes_every_client_that_is_silent(listeners: list[socket.socket]) -> None:
    """Otherwise one whose machine has vanished would hold its name for ever. Linux copies the listener's options."""
    with socket.create_connection(listeners[0].getsockname()):
        accepted, _ = listeners[-1].accept()
    with accepted:
        assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPCNT, socket.TCP_KEEPINTVL)
        assert [accepted.getsockopt(socket.IPPROTO_TCP, option) for option in options] == [30, 3, 10]
