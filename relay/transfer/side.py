"""What the two sides of a transfer have in common; see `upload` and `download`.

The two sides are usually on two nodes. Each is one object with one `run` method, which runs two kinds of loop side by
side: some move bytes, one keeps the transfer alive and watches whether something ends it from outside.
"""

import contextlib
import math
from collections.abc import Coroutine
from time import monotonic
from typing import Any

from relay.errors import ClientGone, Error, Problem, StoreUnavailable
from relay.listed import Listed
from relay.server.connection import Connection
from relay.settings import Settings
from relay.states import Outcome, State
from relay.store.records import Ended, Touched, Transfer
from relay.store.timing import TOUCH
from relay.tasks import Guard
from relay.transfer.context import Context
from relay.transfer.drain import Phase

#: Seconds that one read of a stream blocks.
BLOCK = 2.0
#: Seconds for which a leg may go on before something has to watch it.
_BRIEF = 0.2


class Side:
    """One side of a transfer: its client, which may stall, and the node of the other side, which may die."""

    #: The phase of the node's shutdown in which it ends.
    _ends_in = Phase.CUT

    def __init__(self, context: Context, transfer: Transfer, client: Connection, *topics: str) -> None:
        self.context = context
        self.transfers = context.store.transfers
        self.transfer = transfer
        self.client = client
        #: Hears of the transfer, and of `topics`.
        self._listener = context.node.inbox.listener(transfer.id, *topics)
        #: The node of the other side; empty until one has joined.
        self.peer = ""
        #: When it entered its present state, in monotonic seconds.
        self._since = monotonic()
        #: When its first leg began, in monotonic seconds; None before.
        self._begun: float | None = None

    def _listed(self, sides: dict[Any, None]) -> Listed:
        """List this side among those `sides` that the node holds, from now on until the context ends."""
        self._since = monotonic()
        return Listed(sides, self)

    def _notice_disconnect(self) -> None:
        """Wake this side because the client has left, unless its leaving no longer matters."""
        if self._client_matters():
            self._listener.set()

    def _client_matters(self) -> bool:
        """Return whether a disconnect of the client still ends the transfer."""
        return True

    def _client_progress(self) -> int:
        """Return a number that grows whenever the client sends or takes something."""
        return 0

    def _stalled_since(self) -> float | None:
        """Return since when the client owes us something (bytes to send or to take), in monotonic seconds.

        Return None if it owes nothing.
        """
        raise NotImplementedError

    def _pause(self, seconds: float) -> float:
        """Return the seconds until the next look at the client, at most `seconds`."""
        return seconds

    async def _answer(self, *, woken: bool) -> None:
        """Reply to a node that may have inquired, by a wake-up, whether our client is still there."""

    async def _touch(self) -> Touched:
        """Return how the transfer stands, and renew this side's keys."""
        raise NotImplementedError

    async def _stand(self) -> Touched:
        """Return how the transfer stands, in whatever leg it is by now."""
        while (now := await self._touch()).outcome is Outcome.BROKEN:
            read, self.transfer = self._read_stream(), self.transfers.at_leg(self.transfer, now.leg)
            await self.transfers.delete(read)
        return now

    def _read_stream(self) -> str:
        """Return the key of the stream that this side reads, and the other one writes."""
        raise NotImplementedError

    async def _try_to_end(self, outcome: Outcome) -> Outcome | None:
        """End the transfer if it can still be ended. Return how it has ended, or None if it goes on."""
        raise NotImplementedError

    async def _on_node_lost(self) -> Outcome | None:
        """End the transfer or its leg because the other side's node is dead. Return how it ended, or None."""
        return await self._try_to_end(Outcome.NODE_LOST)

    async def _check_revoked(self, outcome: Outcome) -> None:
        """Raise Problem if the transfer ended because its token is gone, although nobody has revoked it.

        The streams say `revoked` for that too: nodes of earlier versions know no other word.
        """
        if outcome is Outcome.REVOKED:
            with contextlib.suppress(StoreUnavailable):
                if not await self.context.store.tokens.was_revoked(token=self.transfer.token):
                    raise Problem(Error.TOKEN_GONE)

    def _learn(self, ended: Ended) -> Outcome:
        """Return how the transfer ended, as its other side on this node says."""
        return ended.outcome

    def _guarded(self, work: Coroutine[Any, Any, Outcome]) -> Coroutine[Any, Any, Outcome]:
        """Move bytes by `work`, and keep the transfer alive meanwhile. Return how it ended.

        A small transfer is over before it has to be kept alive, unless something wakes us.
        """
        self._begun = self._begun or monotonic()
        guard = Guard(self._keep_alive, after=0 if self._listener.is_set else _BRIEF)
        self._listener.on_set = guard.begin
        return guard.run(work)

    async def _keep_alive(self) -> Outcome:
        """Keep the transfer alive until something ends it from outside. Return how it ended."""
        stall, longest = self.context.settings.stall, self.context.settings.max_duration or math.inf
        progress, since = self._client_progress(), monotonic()
        begun = self._begun or since
        while True:
            left = max(0, begun + longest - monotonic())
            woken = await self._listener.wait(self._pause(min(TOUCH, stall, left)))
            if self.client.is_lost and self._client_matters():
                raise ClientGone
            outcome: Outcome | None = None
            if (owed := self._stalled_since()) is None or self._client_progress() != progress:
                progress, since = self._client_progress(), monotonic()
            elif monotonic() - max(since, owed) >= stall:
                outcome = Outcome.STALLED
            if monotonic() - begun >= longest:
                outcome = Outcome.TOO_LONG
            if not await self.context.node.is_alive(self.peer) and (ended := await self._on_node_lost()):
                return ended
            if self.context.gate.phase >= self._ends_in:
                outcome = Outcome.DRAINED
            if outcome and (ended := await self._try_to_end(outcome)):
                return ended
            if ended := await self._check():
                return ended
            await self._answer(woken=woken)

    async def _check(self) -> Outcome | None:
        """Ask Redis how the transfer stands, unless the other side on this node has told us, and end it if it has to
        end. Return how it ended, or None."""
        if self._listener.ended is not None and not self.transfer.upload:  # or it may be told to a former request
            return self._learn(self._listener.ended)
        now = await self._touch()
        if now.outcome is None or now.state is State.FREE:
            return now.outcome
        return await self._try_to_end(now.outcome)


def time_limit(settings: Settings, outcome: Outcome) -> float:
    """Return the limit, in seconds, that passed if a transfer ended with `outcome`."""
    limits = {Outcome.NO_DOWNLOADER: settings.upload_wait, Outcome.TOO_LONG: settings.max_duration}
    return limits.get(outcome, settings.stall)
