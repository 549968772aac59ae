"""What `relay/server/uvicorn_adapter` relies on in the transports of asyncio and uvloop.

If a test fails after an upgrade, the sentence beside it says what would break. Then mend the adapter.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Any

import pytest
import uvloop

from tests.support.certificate import make_certificate


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*make_certificate(tmp_path_factory.mktemp("tls")))
    return context


class Direct(asyncio.BufferedProtocol):
    """Receives `left` bytes into memory of its own, then lets the other protocol receive."""

    def __init__(self, streamed: "Streamed", left: int) -> None:
        self._streamed, self.left = streamed, left
        self._room = bytearray(1000)

    def get_buffer(self, sizehint: int) -> memoryview:
        return memoryview(self._room)[: self.left]

    def buffer_updated(self, nbytes: int) -> None:
        self._streamed.take(bytes(self._room[:nbytes]))
        self.left -= nbytes
        if not self.left:
            self._streamed.receive_by(self._streamed)

    def connection_lost(self, exc: Exception | None) -> None:
        self._streamed.connection_lost(exc)


class Streamed(asyncio.Protocol):
    """Receives something, then has `Direct` receive 100,000 bytes, and so on."""

    def __init__(self, size: int) -> None:
        self.got = b""
        self.switches = 0
        self._size = size
        self.lost = asyncio.Event()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.socket = transport.get_extra_info("socket")
        self.numbers = (self.socket.fileno(), self.socket.family, self.socket.type)

    def data_received(self, data: bytes) -> None:
        self.take(data)
        self.switches += 1
        self.receive_by(Direct(self, 100_000))

    def take(self, data: bytes) -> None:
        self.got += data
        if len(self.got) == self._size:
            self.transport.close()

    def receive_by(self, receiver: asyncio.BaseProtocol) -> None:
        self.transport.pause_reading()
        self.transport.set_protocol(receiver)
        self.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()


def send_in_thread(address: tuple[str, int], data: bytes, *, tls: bool) -> None:
    connection = socket.create_connection(address, timeout=20)
    if tls:
        client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
        connection = client.wrap_socket(connection)
    with connection:
        connection.sendall(data)
        connection.recv(1)  # until the server closes: over TLS, what it has not read by then would be lost


@pytest.mark.parametrize("tls", [False, True], ids=["tcp", "tls"])
@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_a_connection_can_be_received_by_one_protocol_and_then_by_another(
    loop: Callable[[], asyncio.AbstractEventLoop], tls: bool, context: ssl.SSLContext
) -> None:
    """Otherwise a body that is received directly would lose bytes, or get them out of order.

    And the socket has a descriptor, a family and a type. Otherwise nobody could ask the kernel what it knows.
    """
    data = bytes(index * 7 % 251 for index in range(1_000_000))

    async def test() -> None:
        streamed = Streamed(len(data))
        server = await asyncio.get_running_loop().create_server(
            lambda: streamed, "127.0.0.1", 0, ssl=context if tls else None
        )
        address = server.sockets[0].getsockname()
        sending = asyncio.create_task(asyncio.to_thread(send_in_thread, address, data, tls=tls))
        await asyncio.wait_for(streamed.lost.wait(), 20)
        await sending
        server.close()
        assert streamed.got == data
        assert streamed.switches > 1
        assert streamed.numbers[0] > 0
        assert streamed.numbers[1:] == (socket.AF_INET, socket.SOCK_STREAM)

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(test())
