"""How a download or a HEAD finds its upload: it looks, and waits if there is none. Then a download joins."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from functools import partial

from relay import tracing
from relay.access import Access
from relay.errors import ClientGone, Error, Problem, StoreUnavailable
from relay.logs import audit
from relay.names import new_id
from relay.server.connection import Connection
from relay.states import Answer, Outcome
from relay.store.records import Ender, Transfer
from relay.transfer.context import Context
from relay.transfer.doubt import BRIEF, PATIENCE, confirm, is_taken, with_room
from relay.transfer.download import Joined
from relay.transfer.drain import Phase


class Finder:
    """Finds the upload of a name for one request, and waits for it up to `wait` seconds; a context manager.

    `takes`: True for a download, which joins the upload; False for a HEAD or a condition, which only asks.
    """

    def __init__(
        self, context: Context, access: Access, *, name: str, wait: float, client: Connection, takes: bool = True
    ) -> None:
        self._context = context
        self._transfers = context.store.transfers
        self._token, self._proof = access
        self._name = name
        self._client = client
        self._topic = context.store.keys.transfer(access.id, name)
        #: Hears of claims of the name.
        self._listener = context.node.inbox.listener(self._topic)
        self._deadline = time.monotonic() + wait
        #: Whether the next look counts as a use of the token: the first one of a download does.
        self._use = takes
        self._patience = BRIEF if takes else PATIENCE
        #: Whether Redis has recorded that a download waits here.
        self._is_recorded = False

    def __enter__(self) -> None:
        self._listener.start()

    def __exit__(self, *_: object) -> None:
        """Withdraw the record in Redis, if this was the last that waits for the name here."""
        self._listener.stop()
        if self._is_recorded and not self._context.node.inbox.has_listener(self._topic):
            self._context.background.spawn(self._withdraw())

    async def find(self) -> Transfer:
        """Return an upload that waits under the name.

        Raise Problem(NO_UPLOAD) when the time is over, another Problem, or ClientGone.
        """
        while True:
            may_wait = time.monotonic() < self._deadline
            self._is_recorded = self._is_recorded or may_wait
            transfer = await self._look(may_wait=may_wait)
            if transfer is not None:
                return transfer
            if not may_wait:
                raise Problem(Error.NO_UPLOAD)
            # A client that waits may have pipelined more data, and is not being read.
            with self._client.watched(), self._client.on_lost(self._listener.set):
                await self._listener.wait(min(self._context.node.recheck_after, self._deadline - time.monotonic()))
            self.check_client()

    def check_client(self) -> None:
        """Raise ClientGone if the client has left, or Problem(DRAINING) if waiting clients are sent away."""
        if self._client.is_lost:
            raise ClientGone
        if self._context.gate.phase >= Phase.RELEASED:
            raise Problem(Error.DRAINING)

    async def join(self, transfer: Transfer, *, start: int) -> Joined | None:
        """Join an upload, from byte offset `start` on.

        Return None if the upload is over, or if the place of another download in it has become free. Raise
        Problem(TAKEN) if another download has it.
        """
        joiner = new_id()
        join = partial(self._transfers.join, transfer, joiner=joiner, node=self._context.node.id, start=start)
        try:
            answer = await join()
        except asyncio.CancelledError:
            # What was sent may still be on its way to Redis. So the join is repeated first: one that has been carried
            # out is carried out no second time.
            self._context.background.spawn(self._leave(transfer, joiner, join))
            raise
        except StoreUnavailable:  # Redis may have joined us, and the reply was lost
            self._context.background.spawn(self._leave(transfer, joiner))
            raise
        if answer is Answer.TAKEN and await is_taken(self._context, transfer, start=start):
            raise Problem(Error.TAKEN)
        if answer not in (Answer.JOINED, Answer.ATTACHED):
            return None
        joined = {"transfer": transfer.id, "token": transfer.token, "name": transfer.name}
        audit("joined", **joined)
        event = "joined" if answer is Answer.JOINED else "attached"
        at = {"leg": transfer.leg, "start": start, "peer": transfer.uploader}
        tracing.begin("download", event, **joined, length=transfer.length, **at)
        self._is_recorded = False  # the script of `join` has deleted the record
        return Joined(joiner, start, is_attached=answer is Answer.ATTACHED)

    async def _look(self, *, may_wait: bool) -> Transfer | None:
        """Return the upload under the name, if its client is still there.

        If there is none and the download `may_wait`, the next claim of the name wakes this node.
        """
        waits_on = self._context.node.id if may_wait else ""
        while True:
            access = {"token": self._token, "name": self._name, "proof": self._proof}
            look = partial(self._transfers.look, **access, use=self._use, waits_on=waits_on)
            transfer = await with_room(self._context, self._token, look)
            self._use = False
            self._context.node.load.used_tokens.add(self._token)
            if transfer is None:
                return None
            if (confirmed := await confirm(self._context, transfer, patience=self._patience)) is not None:
                return confirmed

    async def _leave(
        self, transfer: Transfer, joiner: str, join: Callable[[], Awaitable[Answer]] | None = None
    ) -> None:
        """Leave an upload that Redis may have joined us to, after running `join` again."""
        with contextlib.suppress(StoreUnavailable):
            if join is not None:
                await join()
        with contextlib.suppress(StoreUnavailable):
            endings = self._context.endings
            if await endings.leave(transfer, joiner=joiner) is Answer.KEPT:
                ender = Ender(joiner=joiner, unneeded=["chunks"])
                await endings.end(transfer, Outcome.DOWNLOADER_GONE, ender)

    async def _withdraw(self) -> None:
        with contextlib.suppress(StoreUnavailable):
            await self._transfers.unwant(token=self._token, name=self._name, node=self._context.node.id)
