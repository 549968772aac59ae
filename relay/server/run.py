"""Run uvicorn: the drain before the shutdown, and the exit status."""

import asyncio
import gc
import logging
import signal
from typing import Protocol

import uvicorn

from relay.server.uvicorn_adapter import SignalServer

log = logging.getLogger("relay")


class Drain(Protocol):
    """Let the clients go. Return when the server may shut down, soon after `hurry` is set."""

    async def __call__(self, *, hurry: asyncio.Event) -> None: ...


class Server(SignalServer):
    """A server that drains first: the first SIGTERM or SIGINT begins the drain, the second ends it."""

    def __init__(self, config: uvicorn.Config, drain: Drain) -> None:
        super().__init__(config)
        self._drain = drain
        self._hurry = asyncio.Event()
        self._draining: asyncio.Task[None] | None = None

    def on_started(self) -> None:
        # What exists by now stays: the garbage collector need not look at all of it again and again, for 10 ms at a
        # time.
        gc.collect()
        gc.freeze()

    def on_signal(self, sig: int) -> None:
        if self._draining is None:
            log.info("%s: draining, a second one ends at once", signal.Signals(sig).name)
            self._draining = asyncio.create_task(self._drain_then_exit())
        else:
            self._hurry.set()

    async def _drain_then_exit(self) -> None:
        await self._drain(hurry=self._hurry)
        self.exit()
