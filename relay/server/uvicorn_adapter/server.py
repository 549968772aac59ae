"""uvicorn's server, with signals and a crowd of clients handled in our way."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Iterator
from types import FrameType
from typing import Any, cast

import uvicorn
from uvicorn.server import HANDLED_SIGNALS

from relay.server.listening import Crowd


class SignalServer(uvicorn.Server):
    """uvicorn's server, whose signals go to `on_signal`, and which lets in a crowd of clients faster."""

    def on_started(self) -> None:
        """Called when the server has started."""

    def on_signal(self, sig: int) -> None:
        """Called in the event loop for each signal after the start. Call `exit` when it is time to."""

    def exit(self) -> None:
        """Stop serving."""
        self.should_exit = True

    async def startup(self, sockets: Any = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets=sockets)
        self._crowds = [Crowd(listener, self._serve_too) for listener in sockets or ()]
        self.on_started()

    async def shutdown(self, sockets: Any = None) -> None:
        for crowd in self._crowds:
            await crowd.close()
        await super().shutdown(sockets=sockets)

    async def _serve_too(self, listener: socket.socket) -> asyncio.AbstractServer:
        """Serve one more listener, as uvicorn serves those that it has been given."""
        config = self.config
        return await self._loop.create_server(self._new_protocol, sock=listener, ssl=config.ssl, backlog=config.backlog)

    def _new_protocol(self) -> asyncio.BaseProtocol:
        config: Any = self.config  # `http_protocol_class` is declared as the type of any protocol
        return cast(
            asyncio.BaseProtocol,
            config.http_protocol_class(
                config=config, server_state=self.server_state, app_state=self.lifespan.state, _loop=self._loop
            ),
        )

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle signals while serving, and ignore them afterwards: the process is at its end, and one more must not
        turn its exit status into a failure."""
        for sig in HANDLED_SIGNALS:
            signal.signal(sig, self.handle_exit)
        try:
            yield
        finally:
            for sig in HANDLED_SIGNALS:
                signal.signal(sig, signal.SIG_IGN)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.started:
            self._loop.call_soon_threadsafe(self.on_signal, sig)
        else:
            self.exit()
