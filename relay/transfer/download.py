"""The downloader's side of a transfer: store → body."""

import asyncio
import contextlib
from time import monotonic
from typing import Protocol

from relay.buffers import BATCH, Bytes
from relay.errors import ClientGone, StoreUnavailable, problem_for_downloader
from relay.server.connection import Connection
from relay.states import Answer, Outcome
from relay.store.offsets import follows
from relay.store.records import Touched, Transfer
from relay.store.streams import Entry
from relay.tasks import first
from relay.transfer.side import BLOCK, Side, time_limit
from relay.transfer.work import Work

#: Seconds a joined download waits for the first entry before its headers go out regardless.
_FIRST_ENTRY = 1.0


class Sink(Protocol):
    """Where a download goes: the response."""

    begun: bool

    def check(self, transfer: Transfer) -> None:
        """Raises Problem where this client cannot take such a transfer; nothing is joined then."""

    async def begin(self, transfer: Transfer) -> None:
        """Sends the headers."""

    async def write(self, data: Bytes) -> None:
        """Hands over some bytes; returns when there is room for more.  Raises ClientGone."""

    async def send_all_but_last_byte(self, data: Bytes) -> Bytes:
        """Send the last bytes but one, if sending all of them in `complete` could take long.

        Return what is left for `complete`: the last byte, or all of `data`. Raise ClientGone.
        """

    async def complete(self, data: Bytes) -> None:
        """Send the last bytes and complete the response. Return when the client has all of it. Raise ClientGone."""

    def progress(self) -> int:
        """A number that grows whenever the client takes something."""


class Download(Side):
    """One GET that has joined an upload."""

    def __init__(self, work: Work, transfer: Transfer, joiner: str, sink: Sink, client: Connection) -> None:
        super().__init__(work, transfer, client)
        self.peer = transfer.uploader
        self._joiner = joiner
        self._sink = sink
        self._stream = work.stream(transfer, self.peer)
        self._position = 0
        #: What this side has decided, of two things that cannot both be: how it ends, or that it hands over the rest.
        self._decided: Outcome | None = None
        self._finishing = self._finished = False
        #: Ended where the client's leaving does not matter any more.
        self._watching = contextlib.ExitStack()

    async def run(self) -> Outcome:
        """Wakes the uploader, streams, settles.  Raises Problem while nothing has been sent."""
        outcome = Outcome.DOWNLOADER_GONE
        with (
            self.work.node.listening(self.transfer.id) as listener,
            self._telling(listener),
            self._held(self.work.node.downloads),
            self._watching,
        ):
            # One that has sent something behind its request is not read, so that its end would not be seen.
            self._watching.enter_context(self.client.watched())
            try:
                await self.work.node.send_wake(self.peer, self.transfer.question)
                outcome = await first(self._copy(), self._keep(listener))
            except ClientGone:
                outcome = Outcome.DOWNLOADER_GONE
                raise
            except asyncio.CancelledError:
                outcome = Outcome.COMPLETE if self._finished else Outcome.DRAINED
                raise
            except StoreUnavailable:
                outcome = Outcome.STORE_LOST
            finally:
                mine = ("chunks", "acks") if outcome is Outcome.NODE_LOST else ("chunks",)
                await self.work.settle(self.transfer, outcome, *mine, joiner=self._joiner, position=self._position)
        if not self._sink.begun and outcome is not Outcome.UPLOADER_GONE:
            raise problem_for_downloader(outcome, seconds=time_limit(self.work.settings, outcome))
        return outcome

    async def _touch(self) -> Touched:
        return await self.store.touch(self.transfer, joiner=self._joiner, position=self._position)

    async def _end(self, outcome: Outcome) -> Outcome | None:
        """Not once the last bytes are on their way, which cannot be taken back."""
        if not self._finishing:
            self._decided = outcome
        return self._decided

    def _client_matters(self) -> bool:
        return not self._finishing  # the response's end closes the connection, and the sink watches it

    def _client_progress(self) -> int:
        return self._sink.progress()

    async def _copy(self) -> Outcome:
        """Store → body.  Each read acknowledges what those before it brought, also again: Redis may have lost that."""
        while True:
            entries = await self._stream.read(
                position=self._position,
                acknowledge=self._position > 0,
                count=BATCH,
                timeout=BLOCK if self._sink.begun else _FIRST_ENTRY,
            )
            if not entries and self.transfer.length != 0:
                await self._begin()
            for entry in entries:
                if entry.outcome not in (None, Outcome.COMPLETE):
                    return entry.outcome
                if not follows(position=self._position, end=entry.end, size=len(entry.data)) or not self._fits(entry):
                    return Outcome.STORE_LOST
                # A client that has Content-Length bytes may close at once, so those end the download too.
                if entry.outcome is not None or entry.end == self.transfer.length:
                    return await self._finish(entry)
                await self._begin()
                await self._hand_over(entry.data)
                self._position = entry.end
                self.work.node.delivered += len(entry.data)

    async def _finish(self, entry: Entry) -> Outcome:
        """Hands over the last bytes, unless the transfer is over: then they must not arrive."""
        data = entry.data
        if self.transfer.length != 0:  # else its headers are all that there is to hand over
            await self._begin()
            self._owes_since = monotonic()
            data = await self._sink.send_all_but_last_byte(data)
            self._owes_since = None
        answer = await self.store.finish(self.transfer, joiner=self._joiner)
        if self._decided is not None:
            return self._decided
        if answer is not Answer.FINISHING:
            return (await self._touch()).outcome or Outcome.STORE_LOST
        self._finishing = True
        self._watching.close()
        await self._begin()
        await self._sink.complete(data)  # which watches the client's progress by itself
        self._position = entry.end
        self.work.node.delivered += len(entry.data)
        self._finished = True
        return Outcome.COMPLETE

    def _fits(self, entry: Entry) -> bool:
        """Whether the stream keeps to the length that was declared: no more than that, and no end before it."""
        length = self.transfer.length
        return length is None or entry.end == length or (entry.end < length and entry.outcome is None)

    async def _begin(self) -> None:
        """Sends the headers with the first entry or a second after joining: until then an upload that turns
        out to be gone can still be answered by a status."""
        if not self._sink.begun:
            await self._sink.begin(self.transfer)

    async def _hand_over(self, data: Bytes) -> None:
        self._owes_since = monotonic()
        await self._sink.write(data)
        self._owes_since = None
