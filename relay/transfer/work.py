"""What a node is at: the phase of its shutdown, its running sides, and how a transfer is ended and accounted for.

Whatever happens to a side of a transfer, it ends in `Work.settle`, which runs to its end even if the side is
cancelled: the claim is given up, the other side finds the outcome in its stream, and is woken.
"""

import asyncio
import contextlib
import logging
from collections.abc import Coroutine, Iterator, Sequence
from typing import Any
from weakref import WeakValueDictionary

from relay.buffers import Blocks
from relay.cluster.node import Node
from relay.errors import Error, Problem, StoreUnavailable
from relay.logs import fields, note
from relay.settings import Settings
from relay.states import Answer, Outcome, State
from relay.store.records import Final, Transfer
from relay.store.store import Store
from relay.store.streams import Stream
from relay.transfer.drain import Phase
from relay.transfer.local_stream import LocalStream
from relay.transfer.window import share

log = logging.getLogger("relay.transfer")


class Work:
    """The state that all clients of a node share."""

    def __init__(self, settings: Settings, store: Store, node: Node) -> None:
        self.settings = settings
        self.store = store
        self.metrics = store.metrics
        self.node = node
        self.phase = Phase.SERVING
        #: What uploads are received into.
        self.blocks = Blocks(settings.chunk)
        self._local: WeakValueDictionary[str, LocalStream] = WeakValueDictionary()
        self._background: set[asyncio.Task[Any]] = set()
        self._sides = 0
        node.disown = self._disown

    def window(self) -> int:
        """Bytes of each upload that may be in Redis unacknowledged, with as many of them as there are now."""
        return share(self.settings.window, chunk=self.settings.chunk, uploads=len(self.node.uploads[State.STREAMING]))

    @contextlib.contextmanager
    def taking(self) -> Iterator[None]:
        """Around the service of one client.  Raises Problem(DRAINING) where nothing new is taken."""
        if self.phase >= Phase.CLOSED:
            raise Problem(Error.DRAINING)
        self._sides += 1
        try:
            yield
        finally:
            self._sides -= 1

    def is_idle(self) -> bool:
        """Whether no client of this node waits or streams."""
        return not self._sides

    def advance(self, phase: Phase) -> None:
        """Takes the shutdown to the next phase."""
        self.phase = max(self.phase, phase)
        self.node.wake_all()

    def stream(self, transfer: Transfer, peer: str) -> Stream:
        """The stream of a transfer between a side here and one on the node `peer`."""
        if peer != self.node.id:
            return self.store.stream(transfer)
        return self._local.setdefault(transfer.id, LocalStream())  # whoever comes second finds the first one's

    async def end(
        self,
        transfer: Transfer,
        outcome: Outcome,
        *,
        joiner: str = "",
        position: int = 0,
        only_waiting: bool = False,
        mine: Sequence[str] = (),
    ) -> Final | Answer:
        """Ends a transfer; where that was us, logs, counts and wakes the other side."""
        answer = await self.store.end(
            transfer, outcome, joiner=joiner, position=position, only_waiting=only_waiting, mine=mine
        )
        if isinstance(answer, Final):
            self._account(answer, outcome)
            for node in {answer.transfer.uploader, answer.transfer.downloader}:
                # An upload that is complete waits for its last acknowledgement, and finds the end there.
                if node == self.node.id or outcome is not Outcome.COMPLETE:
                    await self.node.send_wake(node, transfer.id)
        return answer

    def _account(self, final: Final, outcome: Outcome) -> None:
        """One line in the log and one count for each transfer that ended."""
        was = final.transfer
        self.node.counts[outcome] += 1
        ended = fields(
            transfer=was.id,
            outcome=outcome.value,
            bytes=final.delivered,
            seconds=final.seconds,
            token=f"{was.token[:4]}…",
            name=was.name,
            uploader=was.uploader,
            downloader=was.downloader or "-",
        )
        log.info("ended", extra=ended)

    async def settle(
        self,
        transfer: Transfer,
        outcome: Outcome,
        *mine: str,
        joiner: str = "",
        position: int = 0,
        seconds: float = 0,
    ) -> None:
        """Ends this side's transfer, whoever ended it first, and deletes the streams that are `mine` (see
        `Store.end`).

        `position`: bytes handed over, and `seconds` since it began, as this side knows them.

        Runs to its end even if the caller is cancelled.  Waits for that, except where Redis is away: then the
        client need not wait, and what cannot be deleted expires.
        """
        note(outcome=outcome.value)
        final = Final(transfer, delivered=position, seconds=round(seconds))
        work = self.spawn(self._settle(final, outcome, mine, joiner))
        if outcome is not Outcome.STORE_LOST:
            await asyncio.shield(work)

    async def _settle(self, known: Final, outcome: Outcome, mine: Sequence[str], joiner: str) -> None:
        transfer, answer = known.transfer, None
        try:
            answer = await self.end(transfer, outcome, joiner=joiner, position=known.delivered, mine=mine)
        except StoreUnavailable:
            left = fields(transfer=transfer.id, outcome=outcome.value)
            log.warning("Redis is away, so a transfer's keys are left to expire", extra=left)
        # Redis, which has lost it, lets nobody hear that they ended it: then the upload's side accounts for it, if
        # it had the claim.
        if outcome is Outcome.STORE_LOST and transfer.uploader and not joiner and not isinstance(answer, Final):
            self._account(known, outcome)

    def _disown(self, token: str, name: str, transfer_id: str) -> None:
        """Ends the claim of an upload that is not here: Redis was rolled back to when it was."""

        async def end() -> None:
            with contextlib.suppress(StoreUnavailable):
                claim = self.store.transfer(token=token, name=name, transfer_id=transfer_id)
                await self.end(claim, Outcome.STORE_LOST)

        self.spawn(end())

    def spawn(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """Runs `work` to its end, beyond the request that began it; `finish` waits for it."""
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    async def finish(self) -> None:
        """Waits for what `spawn` began."""
        while self._background:
            await asyncio.wait(self._background)
