"""How many clients a node lets in at a time."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import pytest
import uvloop

from relay.server import listening
from relay.server.listening import Crowd, listen

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


async def serve(listener: socket.socket) -> asyncio.AbstractServer:
    return await asyncio.get_running_loop().create_server(Served, sock=listener)


async def rounds_until_served(listener: socket.socket, *, as_crowd: bool) -> int:
    """Return how many rounds of the event loop it takes until all clients that have connected are let in."""
    Served.count = 0
    with contextlib.ExitStack() as stack:
        for _ in range(CLIENTS):  # the kernel completes the connections, and holds them in the queue
            stack.enter_context(socket.create_connection(listener.getsockname()))
        server = await serve(listener)
        crowd = Crowd(listener, serve) if as_crowd else None
        rounds = 0
        while Served.count < CLIENTS:
            rounds += 1
            await asyncio.sleep(0)
        if crowd is not None:
            await crowd.close()
        server.close()
        await server.wait_closed()
    return rounds


def test_clients_that_come_at_once_are_let_in_within_a_few_rounds(listener: socket.socket) -> None:
    """Otherwise it would take a round for each client, and rounds are long with many streams."""
    assert uvloop.run(rounds_until_served(listener, as_crowd=True)) <= CLIENTS / 8


def test_libuv_lets_in_one_client_of_each_socket_in_a_round(listener: socket.socket) -> None:
    """If this fails, a new libuv lets in several clients in one round, and `Crowd` is not needed any more."""
    assert uvloop.run(rounds_until_served(listener, as_crowd=False)) >= CLIENTS


async def test_duplicates_are_served_only_while_there_is_a_crowd(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise each client that comes alone would cost 15 failed attempts to accept."""
    monkeypatch.setattr(listening, "_CALM", 0.1)
    served: list[socket.socket] = []

    async def noting(duplicate: socket.socket) -> asyncio.AbstractServer:
        served.append(duplicate)
        return await serve(duplicate)

    crowd = Crowd(listener, noting)
    with contextlib.ExitStack() as stack:
        for _ in range(2):
            Served.count = 0
            served.clear()
            for count in range(1, 9):
                assert not served
                stack.enter_context(socket.create_connection(listener.getsockname()))
                assert len(crowd) == count
                await asyncio.sleep(0.01)
            assert len(served) == 15
            async with asyncio.timeout(20):
                while Served.count < 8 or any(each.fileno() >= 0 for each in served):
                    await asyncio.sleep(0.01)
    await crowd.close()


def test_the_kernel_probes_every_client_that_is_silent(listener: socket.socket) -> None:
    """Otherwise one whose machine has vanished would hold its name for ever. Linux copies the listener's options."""
    with socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
    with accepted:
        assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPCNT, socket.TCP_KEEPINTVL)
        assert [accepted.getsockopt(socket.IPPROTO_TCP, option) for option in options] == [30, 3, 10]
