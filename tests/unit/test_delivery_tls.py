"""The same over TLS, where uvloop has buffers of its own, and notices a client's close without telling anybody."""

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import uvloop
from starlette.types import Scope
from uvicorn.protocols.http.flow_control import FlowControl

from relay.api.download_response import ResponseSink
from relay.api.exchange import Exchange, Services
from relay.buffers import Bytes
from relay.server import connection
from relay.server.connection import EXTENSION, Connection
from relay.server.delivery import Delivery
from relay.server.tcp import Hangups
from tests.support.certificate import make_certificate


class Server(asyncio.Protocol):
    """The server's side of one connection, as `HttpProtocol` is, without HTTP."""

    connection: Connection

    def __init__(self) -> None:
        self.made = asyncio.Event()

    def connection_made(self, transport: Any) -> None:
        self.transport, self.flow = transport, FlowControl(transport)
        self.hangups = Hangups()
        self.connection = Connection(cast(Any, self), self.hangups)
        self.made.set()

    is_answering, is_chunked, untaken = True, True, 0

    def connection_lost(self, exc: Exception | None) -> None:
        self.hangups.close()
        self.flow.resume_writing()
        self.connection.lost(exc)

    def eof_received(self) -> None:
        self.connection.note_tls_closed()

    def write_body(self, data: Bytes) -> None:
        self.transport.write(data)

    def join_head(self) -> None:
        pass

    def keep_open(self) -> bool:
        return True

    async def wait_until_writable(self) -> None:
        await self.flow.drain()

    def pause_writing(self) -> None:
        self.flow.pause_writing()

    def resume_writing(self) -> None:
        self.flow.resume_writing()


class Client:
    """Does TLS by hand, so that it can close TLS and keep its connection."""

    def __init__(self, address: tuple[str, int]) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out)
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        self.socket.settimeout(20)
        self.socket.connect(address)

    def shake_hands(self) -> None:
        while True:
            with contextlib.suppress(ssl.SSLWantReadError):
                self._tls.do_handshake()
                self.socket.sendall(self._out.read())
                return
            self.socket.sendall(self._out.read())
            self._in.write(self.socket.recv(4096))

    def close_tls(self) -> None:
        """Send TLS's close_notify, and no more."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self._tls.unwrap()
        self.socket.sendall(self._out.read())

    def read_all(self) -> int:
        """Take what comes until the server closes. Return how many bytes came."""
        size = 0
        with contextlib.suppress(ConnectionError):
            while piece := self.socket.recv(65536):
                size += len(piece)
        return size


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*make_certificate(Path(tmp_path_factory.mktemp("tls"))))
    return context


@contextlib.asynccontextmanager
async def connected(context: ssl.SSLContext) -> AsyncIterator[tuple[Server, Client]]:
    server = Server()
    listener = await asyncio.get_running_loop().create_server(lambda: server, "127.0.0.1", 0, ssl=context)
    client = Client(listener.sockets[0].getsockname())
    await asyncio.to_thread(client.shake_hands)
    await server.made.wait()
    try:
        yield server, client
    finally:
        client.socket.close()
        server.transport.abort()
        listener.close()


def scope_of(server: Server) -> Scope:
    return {
        "extensions": {EXTENSION: server.connection},
        "http_version": "1.1",
        "path": "/token/name",
        "query_string": b"",
        "headers": [],
    }


async def never(*_: object) -> Any:
    raise AssertionError


def run(test: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(test)


def test_there_is_no_room_for_a_client_that_was_killed(context: ssl.SSLContext) -> None:
    """The loop may have read its close without telling anybody, and then swallows what is written."""

    async def test() -> None:
        async with connected(context) as (server, client):
            assert await server.connection.has_room()
            client.socket.close()
            time.sleep(0.05)  # not asyncio's: the loop must not go on
            assert not await server.connection.has_room()

    run(test())


def test_there_is_no_room_for_a_client_that_has_closed_tls(context: ssl.SSLContext) -> None:
    async def test() -> None:
        async with connected(context) as (server, client):
            client.close_tls()
            async with asyncio.timeout(20):
                while not server.connection.tls_closed:
                    await asyncio.sleep(0.001)
            assert not await server.connection.has_room()

    run(test())


@pytest.mark.parametrize("had_everything", [True, False])
def test_a_client_that_closes_tls_too_early_has_not_got_everything(
    context: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch, had_everything: bool
) -> None:
    """Bytes that the kernel had no room for would be thrown away then, and nobody would know."""

    async def test() -> None:
        async with connected(context) as (server, client):
            with Delivery(server.connection) as delivery:
                server.connection.hold()
                server.transport.write(b"last")
                completing = asyncio.create_task(delivery.complete(patience=20))
                await asyncio.sleep(0.1)
                if not had_everything:
                    monkeypatch.setattr(connection, "unacknowledged", lambda sock: 1)
                client.close_tls()
                assert client.socket.recv(65536), "or its kernel would say that something is unread"
                client.socket.close()
                async with asyncio.timeout(20):
                    assert await completing is had_everything

    run(test())


def test_the_client_has_all_but_the_last_byte_before_that_is_sent(context: ssl.SSLContext) -> None:
    """Then the kernel has room for the last byte, and everything written before it has reached the client."""

    async def test() -> None:
        async with connected(context) as (server, client):
            sink = ResponseSink(
                Exchange(cast(Services, SimpleNamespace(relay=None)), scope_of(server), never, never, "")
            )
            assert not sink.can_take(bytes(60_000))
            await sink.write(bytes(59_999))
            sending = asyncio.create_task(sink.catch_up())
            await asyncio.sleep(0.1)
            assert not sending.done(), "the client has read nothing"
            reading = asyncio.create_task(asyncio.to_thread(client.read_all))
            async with asyncio.timeout(20):
                await sending
            server.transport.abort()
            assert await reading > 59_999

    run(test())


async def watch(connection: Connection) -> None:
    with connection.watched():
        pass


async def deliver(connection: Connection) -> None:
    with Delivery(connection) as delivery:
        assert not await delivery.acknowledged(patience=1)


async def probe(connection: Connection) -> None:
    assert not connection.has_acknowledged(), "nobody vouches for a client that has left"


async def measure(connection: Connection) -> None:
    assert connection.progress() == 0


async def write(connection: Connection) -> None:
    assert not await connection.has_room()


@pytest.mark.parametrize("use", [watch, deliver, probe, measure, write, Connection.cut])
def test_a_closed_socket_harms_nobody_before_its_connection_is_lost(
    context: ssl.SSLContext, use: Callable[[Connection], Coroutine[Any, Any, None]]
) -> None:
    """uvloop closes the socket, and tells so a round later."""

    async def test() -> None:
        async with connected(context) as (server, _):
            server.transport.abort()
            await asyncio.sleep(0)
            assert not server.connection.is_lost, "or nothing is tested"
            assert server.transport.get_extra_info("socket") is None, "or nothing is tested"
            await use(server.connection)
            await asyncio.sleep(0)
            assert server.connection.is_lost

    run(test())


def test_a_client_that_closes_tls_while_its_connection_closes(context: ssl.SSLContext) -> None:
    """A client that is not read closes TLS; the server finds that when it closes, because its patience is over."""

    async def test() -> None:
        async with connected(context) as (server, client):
            server.connection.hold()
            server.transport.pause_reading()
            client.close_tls()
            await asyncio.sleep(0.1)
            assert not server.connection.tls_closed
            server.transport.close()
            assert server.connection.tls_closed
            assert await asyncio.to_thread(client.read_all) > 0
            async with asyncio.timeout(20):
                while not server.connection.is_lost:
                    await asyncio.sleep(0.001)

    run(test())
