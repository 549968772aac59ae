"""Run uvicorn: the drain before the shutdown, and the exit status."""

import asyncio
import gc
import logging
import signal
from typing import Protocol

import uvicorn

from relay.server.uvicorn_adapter import SignalServer

log = logging.getLogger("relay")

#: When the garbage collector runs, as `gc.set_threshold` takes it: young objects are looked at after so many more were
#: made than freed, and the others at each tenth time and at each hundredth. The hundredth time comes after a million
#: objects, which is what 5,000 clients need.
_COLLECT = (10_000, 10, 10)


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
        # What exists by now stays, so the garbage collector need not look at it again. Whatever a client needs is freed
        # when it leaves, because it has no reference cycles (tests/cluster/test_garbage.py). So the collector hardly
        # has to run. If it did at Python's thresholds, it would stop the node for seconds at a time when 10,000 uploads
        # come: a full collection looks at all that they hold.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*_COLLECT)

    def on_signal(self, sig: int) -> None:
        if self._draining is None:
            log.info("%s: draining, a second one ends at once", signal.Signals(sig).name)
            self._draining = asyncio.create_task(self._drain_then_exit())
        else:
            self._hurry.set()

    async def _drain_then_exit(self) -> None:
        await self._drain(hurry=self._hurry)
        self.exit()
