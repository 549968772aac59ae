"""Transfers whose uploader is away: the node that has interrupted one waits for its uploader, and ends it at last.

That takes no task and no connection for each: a node may hold thousands.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from time import monotonic
from typing import Any

from relay.cluster.node import Node
from relay.cluster.progress import Progress
from relay.errors import Problem, StoreUnavailable
from relay.states import State
from relay.store.records import Transfer
from relay.store.store import Store
from relay.tasks import Background


class Absence:
    """One interrupted transfer, as operators see it."""

    def __init__(self, transfer: Transfer, *, node: str, seconds: float) -> None:
        self.transfer = transfer
        self.looked = self._since = monotonic()
        self._node = node
        self._seconds = seconds

    def progress(self, now: float) -> Progress:
        """Return how far it is at `now`, in monotonic seconds."""
        return Progress(
            id=self.transfer.id,
            token=self.transfer.token,
            name=self.transfer.name,
            state=State.INTERRUPTED,
            uploader=self._node,
            downloader=self.transfer.downloader,
            length=self.transfer.length,
            delivered=self.transfer.position,
            rate=0.0,
            seconds=round(now - self._since, 1),
            left=round(self._since + self._seconds - now, 1),
            leg=self.transfer.leg,
        )


class Absences:
    """The interrupted transfers that this node keeps. `give_up` ends one whose uploader has not returned in time."""

    def __init__(
        self,
        node: Node,
        store: Store,
        background: Background,
        *,
        seconds: float,
        give_up: Callable[[Transfer], Awaitable[object]],
    ) -> None:
        self._node = node
        self._store = store
        self._background = background
        self._seconds = seconds
        self._give_up = give_up
        self._kept: dict[str, contextlib.ExitStack] = {}

    def keep(self, transfer: Transfer) -> None:
        """Wait for the uploader of an interrupted transfer, in its present leg."""
        self._drop(transfer)
        absence = Absence(transfer, node=self._node.id, seconds=self._seconds)
        kept = self._kept[transfer.id] = contextlib.ExitStack()
        listed = self._node.load.uploads[State.INTERRUPTED]
        listed[absence] = None
        kept.callback(listed.pop, absence)
        kept.enter_context(self._node.inbox.calling(transfer.id, lambda: self._spawn(self._look(transfer))))
        loop = asyncio.get_running_loop()
        kept.callback(loop.call_later(self._seconds, lambda: self._spawn(self._end(transfer))).cancel)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self._background.spawn(work)

    def _drop(self, transfer: Transfer) -> None:
        if (kept := self._kept.pop(transfer.id, None)) is not None:
            kept.close()

    async def _look(self, transfer: Transfer) -> None:
        """Stop waiting if the transfer has ended or goes on. Something about it has changed."""
        with contextlib.suppress(StoreUnavailable, Problem):  # the token may be gone
            now = await self._store.transfers.look(token=transfer.token, name=transfer.name, use=False)
            if now is None or now.id != transfer.id or now.leg != transfer.leg:
                self._drop(transfer)

    async def _end(self, transfer: Transfer) -> None:
        self._drop(transfer)
        with contextlib.suppress(StoreUnavailable):  # then its key expires
            await self._give_up(transfer)
