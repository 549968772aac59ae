"""Run uvicorn: signals, the drain before the shutdown, and the exit status."""

import asyncio
import contextlib
import gc
import logging
import signal
from collections.abc import Iterator
from types import FrameType
from typing import Any, Protocol

import uvicorn
from uvicorn.server import HANDLED_SIGNALS

log = logging.getLogger("relay")


class Drain(Protocol):
    """Let the clients go. Return when the server may shut down, soon after `hurry` is set."""

    async def __call__(self, *, hurry: asyncio.Event) -> None: ...


class Server(uvicorn.Server):
    """A uvicorn server that drains first: the first SIGTERM or SIGINT begins the drain, the second ends it."""

    def __init__(self, config: uvicorn.Config, drain: Drain) -> None:
        super().__init__(config)
        self._drain = drain
        self._hurry = asyncio.Event()
        self._draining: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: Any = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets=sockets)
        # What there is by now stays: the collector need not look at all of it again and again, for 10 ms at a time.
        gc.collect()
        gc.freeze()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handles signals while serving, and ignores them afterwards: the process is at its end, and one more
        must not turn its exit status into a failure."""
        for sig in HANDLED_SIGNALS:
            signal.signal(sig, self.handle_exit)
        try:
            yield
        finally:
            for sig in HANDLED_SIGNALS:
                signal.signal(sig, signal.SIG_IGN)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._loop is None or not self.started:
            self.should_exit = True
        else:
            self._loop.call_soon_threadsafe(self._on_signal, sig)

    def _on_signal(self, sig: int) -> None:
        if self._draining is None:
            log.info("%s: draining, a second one ends at once", signal.Signals(sig).name)
            self._draining = asyncio.create_task(self._drain_then_exit())
        else:
            self._hurry.set()

    async def _drain_then_exit(self) -> None:
        await self._drain(hurry=self._hurry)
        self.should_exit = True
