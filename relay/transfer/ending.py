"""End transfers, and account for each of them once.

Whatever happens to a side of a transfer, it ends in `Endings.settle`, which runs to its end even if the side is
cancelled: it releases the name, leaves the outcome in the other side's stream, and wakes that side.
"""

import asyncio
import contextlib
import logging
from collections.abc import Collection

from relay import tracing
from relay.cluster.node import Node
from relay.errors import StoreUnavailable
from relay.logs import fields, note
from relay.states import Answer, Outcome, State
from relay.store.records import ANYBODY, Abandoned, Broken, Ended, Ender, Final, Inquiry, Transfer
from relay.store.store import Store
from relay.tasks import Background
from relay.transfer.absence import Absences

log = logging.getLogger("relay.transfer")

#: The outcomes after which a downloader may come back.
_COMES_BACK = {Outcome.DOWNLOADER_GONE, Outcome.DRAINED}
#: The outcomes after which the uploader of a resumable upload may return.
_RETURNS = {Outcome.UPLOADER_GONE, Outcome.DRAINED, Outcome.STALLED, Outcome.STORE_LOST}


class Endings:
    """Ends the transfers of one node's clients, and those whose node is dead."""

    def __init__(self, store: Store, node: Node, background: Background, *, resume_wait: float) -> None:
        self._store = store
        self.absences = Absences(node, store, background, seconds=resume_wait, give_up=self._give_up)
        self._node = node
        self._background = background
        node.inbox.disown = self._disown

    async def end(
        self,
        transfer: Transfer,
        outcome: Outcome,
        by: Ender = ANYBODY,
        *,
        within: Collection[State] = (State.WAITING, State.STREAMING, State.INTERRUPTED),
        any_leg: bool = True,
    ) -> Final | Answer:
        """End a transfer (see `Transfers.end`). If this call ended it, log and count it, and wake the other side."""
        answer = await self._store.transfers.end(transfer, outcome, by, within=within, any_leg=any_leg)
        if isinstance(answer, Final):
            self._account(answer, outcome)
            for node in {answer.transfer.uploader, answer.transfer.downloader} - {""}:
                # An upload that is complete already waits for its last acknowledgement, and finds the end there.
                if node == self._node.id:
                    self._node.inbox.tell(transfer.id, Ended(outcome, answer.delivered))
                elif outcome is not Outcome.COMPLETE:
                    await self._node.inbox.send(node, transfer.id)
        return answer

    async def leave(self, transfer: Transfer, *, joiner: str, position: int = 0) -> Broken | Answer:
        """End a leg whose download is gone (see `Transfers.leave`). If this call ended it, wake the other side."""
        answer = await self._store.transfers.leave(transfer, joiner=joiner, position=position)
        return await self._note_broken(answer, "downloader")

    async def interrupt(
        self, transfer: Transfer, *, sender: str = "", dead: str = "", position: int = 0
    ) -> Broken | Answer:
        """End a leg whose uploader is gone (see `Transfers.interrupt`). If this call ended it, wake the other side, and
        wait for the uploader.
        """
        broken = await self._store.transfers.interrupt(
            transfer, sender=sender, dead=dead, keeper=self._node.id, position=position
        )
        answer = await self._note_broken(broken, "uploader")
        if isinstance(answer, Broken):
            self.absences.keep(answer.transfer)
        return answer

    async def lose(self, transfer: Transfer) -> None:
        """End the leg of a transfer whose node is dead, or the transfer if it cannot go on."""
        if transfer.state is State.FINISHING:
            answer = await self.leave(transfer, joiner=transfer.joiner)
        else:
            answer = await self.interrupt(transfer, dead=transfer.uploader)
        if answer is Answer.KEPT:
            await self.end(transfer, Outcome.NODE_LOST)

    async def _note_broken(self, answer: Broken | Answer, side: str) -> Broken | Answer:
        """Count a leg that was ended because a side has left, and wake the other one."""
        if isinstance(answer, Broken):
            self._node.load.interruptions[side] += 1
            await self._node.inbox.send(answer.other, answer.transfer.id)
        return answer

    async def settle(self, transfer: Transfer, outcome: Outcome, by: Ender, *, seconds: float = 0) -> None:
        """Make sure that this side's transfer, or its leg, has ended, and delete the streams that nobody will read.

        `seconds` is the time since it began, as this side knows it.

        Run to the end even if the caller is cancelled. Wait for it, except when Redis is away: then the client need
        not wait, and the keys that cannot be deleted expire.
        """
        note(outcome=str(outcome))
        if outcome is Outcome.COMPLETE and not by.joiner:  # the download has ended it, and said so in the acks
            await self._forget(transfer)
            return
        work = self._background.spawn(self._settle(transfer, outcome, by, seconds))
        if outcome is not Outcome.STORE_LOST:
            await asyncio.shield(work)

    async def _forget(self, transfer: Transfer) -> None:
        """Delete the acks of a leg whose end the upload has read there."""
        try:
            await self._store.transfers.delete(transfer.keys.acks)
        except StoreUnavailable:
            pass  # they expire
        except asyncio.CancelledError:  # to delete them twice does no harm
            self._background.spawn(self._forget(transfer))
            raise

    async def _settle(self, transfer: Transfer, outcome: Outcome, by: Ender, seconds: float) -> None:
        answer: Broken | Final | Answer | None = None
        is_told = outcome is Outcome.STORE_LOST and not transfer.upload and await self._abandon(transfer)
        try:
            if by.joiner and outcome in _COMES_BACK:
                answer = await self.leave(transfer, joiner=by.joiner, position=by.position)
            elif transfer.upload and not by.joiner and outcome in _RETURNS:
                answer = await self.interrupt(transfer, sender=by.sender or transfer.id, position=by.position)
                if answer is Answer.GONE:  # another request has taken this one's place
                    await self._store.transfers.delete(transfer.keys.acks)
                    tracing.leave()
                    return
            if isinstance(answer, Broken):
                tracing.leave()
                return
            answer = await self.end(transfer, outcome, by)
        except StoreUnavailable:
            left = fields(transfer=transfer.id, outcome=str(outcome))
            log.warning("Redis is away, so a transfer's keys are left to expire", extra=left)
            if is_told:
                return  # the other side's node ends it, and accounts for it
        # If Redis has lost the transfer, nobody gets `Final`. Then the uploader's side accounts for it, if it had
        # claimed the name.
        if outcome is Outcome.STORE_LOST and transfer.uploader and not by.joiner and not isinstance(answer, Final):
            self._account(Final(transfer, delivered=by.position, seconds=round(seconds)), outcome)

    async def _give_up(self, interrupted: Transfer) -> None:
        await self.end(interrupted, Outcome.UPLOADER_GONE, within=[State.INTERRUPTED], any_leg=False)

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
            outcome=str(outcome),
            bytes=final.delivered,
            **({"legs": was.legs} if was.legs > 1 else {}),
            seconds=final.seconds,
            token=was.token,
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
