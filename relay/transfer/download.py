"""The downloader's side of a transfer: from the stream to the response."""

import asyncio
import contextlib
from collections.abc import Iterator
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
from relay.transfer.context import Context
from relay.transfer.side import BLOCK, Side, time_limit

#: Seconds that a joined download waits for the first entry before it sends its headers regardless.
_FIRST_ENTRY = 1.0


class Sink(Protocol):
    """Where the bytes of a download go: the response. Its methods raise ClientGone if the client has left."""

    #: Whether `begin` was called. From then on the client can get no error status.
    begun: bool

    def check(self, transfer: Transfer) -> None:
        """Raise Problem if this client cannot take such a transfer. It is called before the download joins."""

    async def begin(self, transfer: Transfer) -> None:
        """Send the headers."""

    async def write(self, data: Bytes) -> None:
        """Hand over some bytes. Return when there is room for more."""

    async def send_all_but_last_byte(self, data: Bytes) -> Bytes:
        """Send the last bytes but one, if sending all of them in `complete` could take long.

        Return what is left for `complete`: the last byte, or all of `data`. Raise ClientGone.
        """

    async def complete(self, data: Bytes) -> None:
        """Send the last bytes and complete the response. Return when the client has all of it. Raise ClientGone."""

    def progress(self) -> int:
        """Return a number that grows whenever the client takes something."""


class Download(Side):
    """One GET that has joined an upload."""

    def __init__(self, context: Context, transfer: Transfer, joiner: str, sink: Sink, client: Connection) -> None:
        super().__init__(context, transfer, client)
        self.peer = transfer.uploader
        self._joiner = joiner
        self._sink = sink
        self._stream = context.stream(transfer, self.peer)
        #: The byte offset up to which bytes were handed over.
        self._position = 0
        #: Since when the client has been sent something that it has not taken, in monotonic seconds.
        self._sending_since: float | None = None
        #: At most one of the next two is set, and it stays set: the outcome with which this side ends the transfer; or
        #: that this side hands over the last bytes, so that nothing else may end the transfer.
        self._decided: Outcome | None = None
        self._finishing = False
        #: Whether the client has everything.
        self._finished = False
        #: Closed once a disconnect can no longer change the outcome.
        self._watching = contextlib.ExitStack()

    async def run(self) -> Outcome:
        """Wake the uploader, stream, and settle. Return how it ended. Raise Problem if nothing was sent."""
        outcome = Outcome.DOWNLOADER_GONE
        with (
            self.context.node.inbox.listening(self.transfer.id) as listener,
            self._wake_on_disconnect(listener),
            self._listed(self.context.node.load.downloads),
            self._watching,
        ):
            # A client that pipelined more data is not being read, so its disconnect would go unnoticed.
            self._watching.enter_context(self.client.watched())
            try:
                # An inquiry, not only the id, so that a node without this upload disowns it.
                await self.context.node.inbox.send(self.peer, str(self.transfer.inquiry))
                outcome = await first(self._copy(), self._keep_alive(listener))
            except ClientGone:
                outcome = Outcome.DOWNLOADER_GONE
                raise
            except asyncio.CancelledError:
                outcome = Outcome.COMPLETE if self._finished else Outcome.DRAINED
                raise
            except StoreUnavailable:
                outcome = Outcome.STORE_LOST
            finally:
                unneeded = ("chunks", "acks") if outcome is Outcome.NODE_LOST else ("chunks",)
                await self.context.endings.settle(
                    self.transfer, outcome, *unneeded, joiner=self._joiner, position=self._position
                )
        if not self._sink.begun and outcome is not Outcome.UPLOADER_GONE:
            await self._check_revoked(outcome)
            raise problem_for_downloader(outcome, seconds=time_limit(self.context.settings, outcome))
        return outcome

    async def _touch(self) -> Touched:
        return await self.transfers.touch(self.transfer, joiner=self._joiner, position=self._position)

    async def _try_to_end(self, outcome: Outcome) -> Outcome | None:
        """Decide that it ends, unless the last bytes are on their way: they cannot be taken back."""
        if not self._finishing:
            self._decided = outcome
        return self._decided

    def _client_matters(self) -> bool:
        return not self._finishing  # the end of the response closes the connection, and the sink watches that

    def _client_progress(self) -> int:
        return self._sink.progress()

    def _stalled_since(self) -> float | None:
        return self._sending_since

    @contextlib.contextmanager
    def _sending(self) -> Iterator[None]:
        """Let the client owe us that it takes what is being sent."""
        self._sending_since = monotonic()
        yield
        self._sending_since = None

    async def _copy(self) -> Outcome:
        """Copy from the stream to the response, until the transfer ends. Return how it ended.

        Each read acknowledges everything handed over so far, even if that was acknowledged before: Redis may have lost
        an acknowledgement.
        """
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
                if not follows(position=self._position, offset=entry.offset, size=len(entry.data)) or not self._fits(
                    entry
                ):
                    return Outcome.STORE_LOST
                # A client that has Content-Length bytes may close at once, so they end the download too.
                if entry.outcome is not None or entry.offset == self.transfer.length:
                    return await self._hand_over_last(entry)
                await self._begin()
                await self._hand_over(entry.data)
                self._position = entry.offset
                self.context.node.load.delivered += len(entry.data)

    async def _hand_over_last(self, entry: Entry) -> Outcome:
        """Hand over the last bytes, unless the transfer has ended: then they must not arrive."""
        data = entry.data
        if self.transfer.length != 0:  # of an empty file, the headers are all there is to hand over
            await self._begin()
            with self._sending():
                data = await self._sink.send_all_but_last_byte(data)
        answer = await self.transfers.finish(self.transfer, joiner=self._joiner)
        if self._decided is not None:
            return self._decided
        if answer is not Answer.FINISHING:
            return (await self._touch()).outcome or Outcome.STORE_LOST
        self._finishing = True
        self._watching.close()
        await self._begin()
        await self._sink.complete(data)  # which watches by itself whether the client stalls
        self._position = entry.offset
        self.context.node.load.delivered += len(entry.data)
        self._finished = True
        return Outcome.COMPLETE

    def _fits(self, entry: Entry) -> bool:
        """Return whether the stream keeps to the declared length: no byte beyond it, and no end before it."""
        length = self.transfer.length
        return length is None or entry.offset == length or (entry.offset < length and entry.outcome is None)

    async def _begin(self) -> None:
        """Send the headers, unless they were sent.

        They go out with the first entry, or a second after joining. Until then, if the upload turns out to be gone,
        the client can still get a status.
        """
        if not self._sink.begun:
            await self._sink.begin(self.transfer)

    async def _hand_over(self, data: Bytes) -> None:
        with self._sending():
            await self._sink.write(data)
