"""What `relay/server/uvicorn_adapter` relies on in uvicorn's server, although uvicorn does not promise it.

If a test fails after an upgrade, the sentence beside it says what would break. Then mend the adapter.
"""

import asyncio
import signal
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import uvicorn
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.server import HANDLED_SIGNALS

from relay.server import uvicorn_adapter
from tests.contract.http import GET, Ours, app
from tests.support.certificate import make_certificate


def test_the_signals_that_end_a_server() -> None:
    """Otherwise a node would be killed by SIGTERM in the middle of its transfers."""
    assert set(HANDLED_SIGNALS) >= {signal.SIGINT, signal.SIGTERM}


@pytest.fixture
def handlers() -> Iterator[None]:
    kept = {sig: signal.getsignal(sig) for sig in HANDLED_SIGNALS}
    yield
    for sig, handler in kept.items():
        signal.signal(sig, handler)


@pytest.mark.usefixtures("handlers")
def test_a_server_calls_what_the_adapter_replaces() -> None:
    """Otherwise signals would not begin a drain, and the start would not be noticed."""
    calls: list[object] = []

    class Server(uvicorn_adapter.SignalServer):
        def on_started(self) -> None:
            calls.append(self.started)
            signal.raise_signal(signal.SIGTERM)

        def on_signal(self, sig: int) -> None:
            calls.append(sig)
            self.exit()

    assert signal.SIGTERM in HANDLED_SIGNALS, "or the signal below would end the tests"
    Server(uvicorn.Config(app, port=0, lifespan="off", log_config=None)).run()
    assert calls == [True, signal.SIGTERM]
    assert all(signal.getsignal(sig) is signal.SIG_IGN for sig in HANDLED_SIGNALS)


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize("tls", [False, True], ids=["tcp", "tls"])
def test_clients_that_come_at_once_are_served_as_one_that_comes_alone(tls: bool, tmp_path: Path) -> None:
    """Most of a crowd are not accepted by uvicorn's own servers. They have to get the same protocol, state and TLS."""
    seen: list[tuple[str, object]] = []
    connected: list[socket.socket] = []

    async def answering(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            scope["state"]["key"] = "value"
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        seen.append((scope["scheme"], scope["state"]))
        await send({"type": "http.response.start", "status": 200, "headers": [(b"connection", b"close")]})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    class Server(uvicorn_adapter.SignalServer):
        def on_started(self) -> None:
            for _ in range(40):
                connected.append(socket.create_connection(listener.getsockname()))
            self.asking = asyncio.create_task(self.ask())

        async def ask(self) -> None:
            await asyncio.gather(*(asyncio.to_thread(ask, each, tls=tls) for each in connected))
            self.exit()

    certificate, key = make_certificate(tmp_path) if tls else (None, None)
    config = uvicorn.Config(answering, http=Ours, log_config=None, ssl_certfile=certificate, ssl_keyfile=key)
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        listener.setblocking(False)
        server = Server(config)
        server.run(sockets=[listener])
    assert seen == [("https" if tls else "http", {"key": "value"})] * 40
    assert not server.server_state.connections


def ask(connection: socket.socket, *, tls: bool) -> None:
    if tls:
        client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
        connection = client.wrap_socket(connection)
    with connection:
        connection.sendall(GET + b"\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 200 OK")


def test_flow_control_is_what_it_was() -> None:
    """Its flag is set by hand when another protocol begins to receive: pausing must go by it."""
    calls: list[str] = []

    class Paused:
        def pause_reading(self) -> None:
            calls.append("pause")

        def resume_reading(self) -> None:
            calls.append("resume")

    flow = FlowControl(cast(Any, Paused()))
    flow.resume_reading()
    flow.pause_reading()
    flow.pause_reading()
    flow.read_paused = False
    flow.pause_reading()
    flow.resume_reading()
    assert calls == ["pause", "pause", "resume"]
