"""How many clients a node lets in at a time."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import pytest
import uvloop

from relay.server.listening import Queue, listen
from relay.tasks import Background

#: Number of clients that connect at once.
CLIENTS = 64


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    [found] = listen("127.0.0.1", 0, backlog=CLIENTS)
    with found:
        yield found


class Served(asyncio.Protocol):
    """Lets a client in, and closes the connection."""

    count = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        Served.count += 1
        transport.close()


async def rounds_until_served(listener: socket.socket, *, with_queue: bool) -> int:
    """Return how many rounds of the event loop it takes until all clients that have connected are let in."""
    loop, coming, Served.count = asyncio.get_running_loop(), Background(), 0

    def let_in(client: socket.socket) -> None:
        coming.spawn(loop.connect_accepted_socket(Served, client))

    with contextlib.ExitStack() as stack:
        for _ in range(CLIENTS):  # the kernel completes the connections, and holds them in the queue
            stack.enter_context(socket.create_connection(listener.getsockname()))
        server = await loop.create_server(Served, sock=listener)
        if with_queue:
            stack.enter_context(contextlib.closing(Queue(listener, let_in)))
        rounds = 0
        while Served.count < CLIENTS:
            rounds += 1
            await asyncio.sleep(0)
        await coming.wait()
        server.close()
        await server.wait_closed()
    return rounds


def test_clients_that_come_at_once_are_let_in_within_a_few_rounds(listener: socket.socket) -> None:
    """Otherwise it would take a round for each client, and rounds are long with many streams."""
    assert uvloop.run(rounds_until_served(listener, with_queue=True)) <= CLIENTS / 8


def test_libuv_lets_in_one_client_of_each_socket_in_a_round(listener: socket.socket) -> None:
    """If this fails, a new libuv lets in several clients in one round, and `Queue` is not needed any more."""
    assert uvloop.run(rounds_until_served(listener, with_queue=False)) >= CLIENTS


async def test_the_first_client_is_left_to_the_event_loop(listener: socket.socket) -> None:
    let_in: list[socket.socket] = []
    with contextlib.ExitStack() as stack:
        queue = stack.enter_context(contextlib.closing(Queue(listener, let_in.append)))
        for count in (1, 2, 3):
            stack.enter_context(socket.create_connection(listener.getsockname()))
            assert len(queue) == 1 + (count > 1)  # the client that was left, and the new one
            await asyncio.sleep(0.01)
            assert len(let_in) == count - 1
        for client in let_in:
            client.close()


def test_the_kernel_probes_every_client_that_is_silent(listener: socket.socket) -> None:
    """Otherwise one whose machine has vanished would hold its name for ever. Linux copies the listener's options."""
    with socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
    with accepted:
        assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPCNT, socket.TCP_KEEPINTVL)
        assert [accepted.getsockopt(socket.IPPROTO_TCP, option) for option in options] == [30, 3, 10]
