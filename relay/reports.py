"""What this node tells operators of itself, every heartbeat, and what it reads of all: the status page's side of Redis.

Nothing hangs on it: a report that fails is made up for by the next one.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from itertools import chain, islice

from relay.errors import StoreUnavailable
from relay.nodes import Node
from relay.overview import Overview
from relay.settings import Settings
from relay.states import State
from relay.store import Store
from relay.tasks import stop

log = logging.getLogger("relay.reports")

#: Transfers in one node's report: what fits on a page, whatever the node holds.
_TRANSFERS_MOST = 100
#: Seconds for which an overview is good.
_FRESH = 1.0


class Reports:
    """Writes this node's report and reads those of all.  Use `running` around the server's life."""

    def __init__(self, settings: Settings, store: Store, node: Node) -> None:
        self._settings = settings
        self._store = store
        self._node = node
        self._over: list[str] = []
        self._overview: Overview | None = None
        self._read = 0.0
        self._reading = asyncio.Lock()

    async def overview(self) -> Overview:
        """The cluster, as it was at most a second ago.  Raises StoreUnavailable."""
        async with self._reading:
            if self._overview is None or time.monotonic() - self._read > _FRESH:
                self._overview = await self._store.overview()
                self._read = time.monotonic()
            return self._overview

    async def report(self) -> None:
        """Tells of the transfers here, and of the tokens whose life has changed here.  Raises StoreUnavailable."""
        now = time.monotonic()
        uploads = chain(self._node.uploads[State.STREAMING], self._node.uploads[State.WAITING])
        transfers = [upload.progress(now) for upload in islice(uploads, _TRANSFERS_MOST)]
        await self._store.report(node=self._node.id, transfers=transfers)
        used = self._node.used.copy()
        lives = await self._store.lives(tokens=[*used, *self._over])
        self._over = await self._store.enrol(lives=lives)
        self._node.used -= used

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Reports with every heartbeat."""
        task = asyncio.create_task(self._report_for_ever())
        try:
            yield
        finally:
            await stop([task])

    async def _report_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._settings.heartbeat)
            try:
                await self.report()
            except StoreUnavailable:
                pass  # the heartbeat's loop says so in the log
            except Exception:
                log.exception("a bug: the report for the status page failed")
