"""What the two sides of a transfer have in common; see `upload` and `download`.

The two are usually on two nodes.  Each is one object with one `run`, and runs its loops side by side: one moves
bytes, one keeps the transfer alive and watches for its end from outside.
"""

import contextlib
import math
from collections.abc import Iterator
from time import monotonic
from typing import Any

from relay.cluster.inbox import Listener
from relay.errors import ClientGone
from relay.server.connection import Connection
from relay.settings import Settings
from relay.states import Outcome, State
from relay.store.records import Touched, Transfer
from relay.store.store import TOUCH
from relay.transfer.drain import Phase
from relay.transfer.work import Work

#: Seconds one read of a stream blocks.
BLOCK = 2.0


class Side:
    """What both sides of a transfer have: the other side's node to watch, and a client that may stall."""

    def __init__(self, work: Work, transfer: Transfer, client: Connection) -> None:
        self.work = work
        self.store = work.store
        self.transfer = transfer
        self.client = client
        self.peer = ""
        #: Since when (monotonic seconds) it is in its state.
        self._since = monotonic()
        #: Since when (monotonic seconds) the client owes us something: bytes to send, or to take.
        self._owes_since: float | None = None

    @contextlib.contextmanager
    def _held(self, sides: dict[Any, None]) -> Iterator[None]:
        """Within it, this is among those `sides` that the node holds."""
        self._since, sides[self] = monotonic(), None
        try:
            yield
        finally:
            del sides[self]

    @contextlib.contextmanager
    def _telling(self, listener: Listener) -> Iterator[None]:
        """Within it, the listener is woken when the client leaves, as long as that matters."""

        def left() -> None:
            if self._client_matters():
                listener.set()

        with self.client.on_lost(left):
            yield

    def _client_matters(self) -> bool:
        return True

    def _client_progress(self) -> int:
        return 0

    def _owed_since(self) -> float | None:
        """Return since when (monotonic seconds) the client owes us something; None if it owes nothing."""
        return self._owes_since

    def _patience(self, seconds: float) -> float:
        """How long to wait for a wake-up, of `seconds` at most."""
        return seconds

    async def _answer(self, *, woken: bool) -> None:
        """Answers whoever may have asked, by a wake-up, whether our client still lives."""

    async def _touch(self) -> Touched:
        """Looks how the transfer stands, and renews this side's part of it."""
        raise NotImplementedError

    async def _end(self, outcome: Outcome) -> Outcome | None:
        """Ends the transfer, if that can be.  Answers how it has ended; None where it goes on."""
        raise NotImplementedError

    async def _keep(self, listener: Listener) -> Outcome:
        """Keeps the transfer alive until something ends it from outside."""
        stall, most = self.work.settings.stall, self.work.settings.max_duration or math.inf
        begun, progress, since = monotonic(), self._client_progress(), monotonic()
        while True:
            woken = await listener.wait(self._patience(min(TOUCH, stall, most)))
            if self.client.is_lost and self._client_matters():
                raise ClientGone
            outcome = None
            if (owed := self._owed_since()) is None or self._client_progress() != progress:
                progress, since = self._client_progress(), monotonic()
            elif monotonic() - max(since, owed) >= stall:
                outcome = Outcome.STALLED
            if monotonic() - begun >= most:
                outcome = Outcome.TOO_LONG
            if not await self.work.node.is_alive(self.peer):
                outcome = Outcome.NODE_LOST
            if self.work.phase >= Phase.CUT:
                outcome = Outcome.DRAINED
            if (outcome and (ended := await self._end(outcome))) or (ended := await self._ended()):
                return ended
            await self._answer(woken=woken)

    async def _ended(self) -> Outcome | None:
        """How the transfer ended, or has to end, by what Redis says; None where it goes on."""
        now = await self._touch()
        return now.outcome if now.outcome is None or now.state is State.FREE else await self._end(now.outcome)


def time_limit(settings: Settings, outcome: Outcome) -> float:
    """The seconds that have passed where a transfer ended for the time it took."""
    limits = {Outcome.NO_DOWNLOADER: settings.upload_wait, Outcome.TOO_LONG: settings.max_duration}
    return limits.get(outcome, settings.stall)
