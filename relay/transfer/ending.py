"""End transfers, and account for each of them once.

Whatever happens to a side of a transfer, it ends in `Endings.settle`, which runs to its end even if the side is
cancelled: it releases the name, leaves the outcome in the other side's stream, and wakes that side.
"""

import asyncio
import contextlib
import logging
from collections.abc import Sequence

from relay.cluster.node import Node
from relay.errors import StoreUnavailable
from relay.logs import fields, note
from relay.states import Answer, Outcome
from relay.store.records import Abandoned, Final, Inquiry, Transfer
from relay.store.store import Store
from relay.tasks import Background

log = logging.getLogger("relay.transfer")


class Endings:
    """Ends the transfers of one node's clients, and those whose node is dead."""

    def __init__(self, store: Store, node: Node, background: Background) -> None:
        self._store = store
        self._node = node
        self._background = background
        node.inbox.disown = self._disown

    async def end(
        self,
        transfer: Transfer,
        outcome: Outcome,
        *,
        joiner: str = "",
        position: int = 0,
        only_waiting: bool = False,
        unneeded: Sequence[str] = (),
    ) -> Final | Answer:
        """End a transfer (see `Transfers.end`). If this call ended it, log and count it, and wake the other side."""
        answer = await self._store.transfers.end(
            transfer, outcome, joiner=joiner, position=position, only_waiting=only_waiting, unneeded=unneeded
        )
        if isinstance(answer, Final):
            self._account(answer, outcome)
            for node in {answer.transfer.uploader, answer.transfer.downloader}:
                # An upload that is complete already waits for its last acknowledgement, and finds the end there.
                if node == self._node.id or outcome is not Outcome.COMPLETE:
                    await self._node.inbox.send(node, transfer.id)
        return answer

    async def settle(
        self,
        transfer: Transfer,
        outcome: Outcome,
        *unneeded: str,
        joiner: str = "",
        position: int = 0,
        seconds: float = 0,
    ) -> None:
        """Make sure that this side's transfer has ended, and delete the streams that nobody will read any more.

        These are `unneeded`: any of `chunks` and `acks`.

        `position` is the bytes handed over and `seconds` the time since it began, as this side knows them.

        Run to the end even if the caller is cancelled. Wait for it, except when Redis is away: then the client need
        not wait, and the keys that cannot be deleted expire.
        """
        note(outcome=outcome.value)
        known = Final(transfer, delivered=position, seconds=round(seconds))
        work = self._background.spawn(self._settle(known, outcome, unneeded, joiner))
        if outcome is not Outcome.STORE_LOST:
            await asyncio.shield(work)

    async def _settle(self, known: Final, outcome: Outcome, unneeded: Sequence[str], joiner: str) -> None:
        transfer, answer = known.transfer, None
        is_told = outcome is Outcome.STORE_LOST and await self._abandon(transfer)
        try:
            answer = await self.end(transfer, outcome, joiner=joiner, position=known.delivered, unneeded=unneeded)
        except StoreUnavailable:
            left = fields(transfer=transfer.id, outcome=outcome.value)
            log.warning("Redis is away, so a transfer's keys are left to expire", extra=left)
            if is_told:
                return  # the other side's node ends it, and accounts for it
        # If Redis has lost the transfer, nobody gets `Final`. Then the uploader's side accounts for it, if it had
        # claimed the name.
        if outcome is Outcome.STORE_LOST and transfer.uploader and not joiner and not isinstance(answer, Final):
            self._account(known, outcome)

    async def _abandon(self, transfer: Transfer) -> bool:
        """Ask the other side's node to end the transfer, because it may reach Redis. Return whether it is asked."""
        abandoned = Abandoned(transfer.token, transfer.name, transfer.id)
        for node in {transfer.uploader, transfer.downloader} - {self._node.id, ""}:
            with contextlib.suppress(StoreUnavailable):
                await self._store.nodes.wake(node=node, about=str(abandoned))
                return True
        return False

    def _account(self, final: Final, outcome: Outcome) -> None:
        """Log one line and count one for a transfer that ended."""
        was = final.transfer
        self._node.load.counts[outcome] += 1
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

    def _disown(self, inquiry: Inquiry) -> None:
        """End a transfer whose upload is not on this node, because Redis was rolled back to a time when it was; or one
        whose other side has lost Redis."""

        async def end() -> None:
            with contextlib.suppress(StoreUnavailable):
                claim = self._store.transfers.identify(token=inquiry.token, name=inquiry.name, transfer_id=inquiry.id)
                if self._node.inbox.has_listener(str(inquiry)):
                    await self._store.transfers.end(claim, Outcome.STORE_LOST)
                    self._node.inbox.wake(claim.id)  # the upload is here, and accounts for it
                else:
                    await self.end(claim, Outcome.STORE_LOST)

        self._background.spawn(end())
