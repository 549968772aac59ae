"""The downloader's side of a transfer: from the stream to the response."""

import asyncio
import contextlib
from time import monotonic
from typing import NamedTuple, Protocol

from relay import tracing
from relay.buffers import BATCH, Bytes
from relay.cluster.progress import SETTLING, Meter, Taken
from relay.errors import ClientGone, StoreUnavailable, problem_for_downloader
from relay.server.connection import Connection
from relay.states import Answer, Outcome, State
from relay.store.offsets import follows
from relay.store.records import Ender, Final, Inquiry, Meeting, Touched, Transfer
from relay.store.streams import Entry, Stream
from relay.store.timing import TOUCH
from relay.transfer.context import Context
from relay.transfer.side import BLOCK, Side, time_limit

#: Seconds that a joined download waits for the first entry before it sends its headers regardless.
_FIRST_ENTRY = 1.0
#: Seconds in which a client has to take something of what it is sent, if somebody else wants the upload; and seconds
#: between two looks at that.
_PROOF, _LOOK = 1.0, 0.05
#: Seconds between two reports to Redis of how far it is, if the bytes do not pass through Redis.
_REPORT = 1.0
#: The outcomes after which a download that has sent nothing yet waits for the next upload of the name.
STARTS_AGAIN = (Outcome.UPLOADER_GONE, Outcome.DOWNLOADER_GONE)


class _Contested(NamedTuple):
    """Since when somebody wants our place, in monotonic seconds, what our client had taken then, and for what."""

    since: float
    progress: int
    resumes: bool


class Joined(NamedTuple):
    """How a download has joined an upload: by which id, and from which byte offset on."""

    id: str
    start: int = 0
    #: Whether the uploader is away, so that the download joins when it returns.
    is_attached: bool = False


class Sink(Protocol):
    """Where the bytes of a download go: the response. Its methods raise ClientGone if the client has left."""

    #: Whether `begin` was called. From then on the client can get no error status.
    begun: bool

    def start_of(self, transfer: Transfer) -> int:
        """Return the byte offset from which on the client wants the file. It is called before the download joins.

        Raise Problem if the client cannot take such a transfer.
        """

    async def begin(self, transfer: Transfer, *, at_end: bool = False) -> None:
        """Send the headers. `at_end`: `complete` follows at once, and sends them with the last bytes."""

    async def write(self, data: Bytes) -> None:
        """Hand over some bytes. Return when there is room for more."""

    def can_take(self, data: Bytes) -> bool:
        """Return whether the client can be given the last bytes by `complete` alone, which must not take long."""

    async def catch_up(self) -> None:
        """Wait until the client has everything that was written. Raise ClientGone."""

    async def complete(self, data: Bytes) -> None:
        """Send the last bytes and complete the response. Return when the client has all of it. Raise ClientGone."""

    def progress(self) -> int:
        """Return a number that grows whenever the client takes something."""


class Download(Side):
    """One GET that has joined an upload."""

    def __init__(self, context: Context, transfer: Transfer, joined: Joined, sink: Sink, client: Connection) -> None:
        super().__init__(context, transfer, client)
        self.peer = transfer.uploader
        self._joiner = joined.id
        self._sink = sink
        #: None while the uploader is away.
        self._stream = None if joined.is_attached else context.stream(transfer, self.peer)
        #: The byte offset up to which bytes were handed over.
        self.position = self._start = joined.start
        self._meter, self._taken = Meter(monotonic(), total=joined.start, settling=SETTLING), joined.start
        #: Whether the client has everything but the headers, which then go out with the end.
        self._is_empty = transfer.length is not None and transfer.length == joined.start
        #: Since when the client has been sent something that it has not taken, in monotonic seconds.
        self._sending_since: float | None = None
        #: At most one of the next two is set, and it stays set: the outcome with which this side ends the transfer; or
        #: that this side hands over the last bytes, so that nothing else may end the transfer.
        self._decided: Outcome | None = None
        self._finishing = False
        #: Whether the client has everything.
        self._finished = False
        #: Set while somebody else wants our place.
        self._contested: _Contested | None = None
        #: A client that pipelined more data is not being read, so its disconnect would go unnoticed. It ends once a
        #: disconnect can no longer change the outcome.
        self._watch = client.watched()

    async def run(self) -> Outcome:
        """Wake the uploader, stream, and settle. Return how it ended. Raise Problem if nothing was sent."""
        outcome = Outcome.DOWNLOADER_GONE
        with (
            self._listener,
            self.client.on_lost(self._notice_disconnect),
            self.context.node.inbox.contestable(self._joiner, self._contest),
            self._listed(self.context.node.load.downloads),
            self._watch,
        ):
            try:
                outcome = await self._serve()
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
                ender = Ender(joiner=self._joiner, position=self.position, unneeded=unneeded)
                tracing.add(sent=self.position - self._start, delivered=self.position)
                await self.context.endings.settle(self.transfer, outcome, ender)
        if not self._sink.begun and outcome not in STARTS_AGAIN:
            await self._check_revoked(outcome)
            raise problem_for_downloader(outcome, seconds=time_limit(self.context.settings, outcome))
        return outcome

    def taken(self, now: float) -> Taken:
        """Return what the client's machine has acknowledged by `now`, in monotonic seconds, for operators.

        What was handed over may be megabytes in buffers of ours, which fill in bursts.
        """
        self._taken = max(self._taken, self.position - self.client.behind)
        return Taken(self._taken, self._meter.read(self._taken, now))

    async def _serve(self) -> Outcome:
        """Stream one leg after the other. Return how the transfer ended."""
        while True:
            outcome: Outcome | None = None
            if self._stream is None:
                outcome = await self._wait()
            if self._stream is not None:
                self._wake_uploader(self._stream)
                outcome = await self._guarded(self._copy(self._stream))
            if outcome is not Outcome.BROKEN:
                return outcome or Outcome.UPLOADER_GONE
            tracing.happened("interrupted", by="upload", delivered=self.position)
            self._stream = None

    def _wake_uploader(self, stream: Stream) -> None:
        """Wake the upload: by more than its id, so that a node without it disowns it.

        If the upload's node understands that, it is told all that it would look for in Redis.
        """
        transfer, node = self.transfer, self.context.node
        about: Inquiry | Meeting = transfer.inquiry
        if self.peer == transfer.hears:
            about = Meeting(transfer.inquiry, transfer.leg, self.position, self._joiner, node.id)
        if self.peer == node.id:
            node.inbox.wake(str(about))
        else:
            stream.wake_with_read(node=self.peer, about=str(about))

    async def _wait(self) -> Outcome | None:
        """Wait for the uploader to return, and join its next leg. Return None then, otherwise how the wait ended."""
        begun = monotonic()
        deadline = begun + self.context.settings.resume_wait
        while True:
            now = await self._stand()
            if now.outcome is not None:
                # If another download is in our place, Redis does not have the transfer in the form that we know.
                return Outcome.DOWNLOADER_GONE if now.outcome is Outcome.STORE_LOST else now.outcome
            if now.state is State.WAITING and await self._join(now):
                return None
            if self.client.is_lost:
                raise ClientGone
            if self.context.gate.phase >= self._ends_in:
                return Outcome.DRAINED
            if monotonic() >= deadline:
                answer = await self.context.endings.end(
                    self.transfer, Outcome.UPLOADER_GONE, Ender(joiner=self._joiner)
                )
                if isinstance(answer, Final):
                    return Outcome.UPLOADER_GONE
            if monotonic() - begun >= _FIRST_ENTRY and not self._is_empty:
                await self._begin()
            woken = await self._listener.wait(self._pause(TOUCH if self._sink.begun else _FIRST_ENTRY))
            await self._answer(woken=woken)

    async def _join(self, now: Touched) -> bool:
        """Join the next leg. Return whether that was possible."""
        node = self.context.node.id
        answer = await self.transfers.join(self.transfer, joiner=self._joiner, node=node, start=self.position)
        if answer is not Answer.JOINED:
            return False
        self.peer = now.uploader
        tracing.happened("joined", leg=now.leg, start=self.position, peer=now.uploader)
        self._stream = self.context.stream(self.transfer, self.peer)
        return True

    async def _touch(self) -> Touched:
        return await self.transfers.touch(self.transfer, joiner=self._joiner, position=self.position)

    def _read_stream(self) -> str:
        return self.transfer.keys.chunks

    async def _on_node_lost(self) -> Outcome | None:
        """End the leg, if the uploader may return through another node."""
        if self._finishing or not self.transfer.upload:
            return await super()._on_node_lost()
        await self.context.endings.lose(self.transfer._replace(uploader=self.peer, state=State.STREAMING))
        return None

    def _contest(self, resumes: bool) -> None:
        """Note that another download wants our place."""
        if self._contested is None:  # whoever asks keeps asking
            self._contested = _Contested(monotonic(), self._client_progress(), resumes)
            self._listener.set()

    async def _answer(self, *, woken: bool) -> None:
        """Vouch for our client, or give its place to the one who wants it.

        A client that takes nothing for a while may be there: it is slow, and its kernel tells so only now and then. So
        it loses its place to a download that goes on with the file, which may be its own. To any other it loses it only
        if its machine does not answer any more.
        """
        if self._contested is None:
            return
        is_over = monotonic() - self._contested.since >= _PROOF
        is_taking = self._sending_since is None or self._client_progress() != self._contested.progress
        if not self._finishing:
            if self.client.has_stopped_answering():
                raise ClientGone
            if is_over and not is_taking and self._contested.resumes:
                raise ClientGone
        if is_over or is_taking or self._finishing:
            self._contested = None
            with contextlib.suppress(StoreUnavailable):  # then whoever asked assumes that our client is gone
                await self.transfers.vouch(self.transfer, downloader=True)

    def _pause(self, seconds: float) -> float:
        if self._contested:
            return min(seconds, _LOOK)
        # The uploader may ask any node how far its receiver is.
        return min(seconds, _REPORT) if self.peer == self.context.node.id else seconds

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

    async def _copy(self, stream: Stream) -> Outcome:
        """Copy from the stream to the response, until the transfer or its leg ends. Return how it ended.

        Each read acknowledges everything handed over so far, even if that was acknowledged before: Redis may have lost
        an acknowledgement.
        """
        while True:
            entries = await stream.read(
                position=self.position,
                acknowledge=self.position > 0,
                count=BATCH,
                timeout=BLOCK if self._sink.begun else _FIRST_ENTRY,
            )
            if not entries and not self._is_empty and self._is_peer_there():
                await self._begin()
            for entry in entries:
                if entry.outcome not in (None, Outcome.COMPLETE):
                    return entry.outcome  # of the transfer, or BROKEN
                if not follows(position=self.position, offset=entry.offset, size=len(entry.data)) or not self._fits(
                    entry
                ):
                    return Outcome.STORE_LOST
                # A client that has Content-Length bytes may close at once, so they end the download too.
                if entry.outcome is not None or entry.offset == self.transfer.length:
                    return await self._hand_over_last(entry, is_finishing=entries[-1].is_finishing)
                await self._begin()
                await self._hand_over(entry.data)
                self.position = entry.offset
                self.context.node.load.delivered += len(entry.data)

    def _is_peer_there(self) -> bool:
        """Return whether the upload's node has shown a sign of life since we joined. It may have died just before."""
        return self.context.node.has_beaten_since(self.peer, self._since)

    async def _hand_over_last(self, entry: Entry, *, is_finishing: bool) -> Outcome:
        """Hand over the last bytes, unless the transfer has ended: then they must not arrive.

        If it `is_finishing` already, only this side can end it.
        """
        data = entry.data
        if not self._is_empty and not self._sink.can_take(data):
            await self._begin()
            if before := data[:-1]:
                # The leg may end before the last byte may be handed over. Then the next one begins there.
                await self._hand_over(before)
                self.position += len(before)
            data = data[-1:]
            self._sending_since = monotonic()
            await self._sink.catch_up()
            self._sending_since = None
        is_finishing = is_finishing or await self._finish()
        if self._decided is not None:
            return self._decided
        if not is_finishing:
            return await self._ended()
        self._finishing = True
        self._watch.__exit__(None, None, None)  # once more at the end does no harm
        await self._begin(at_end=True)
        await self._sink.complete(data)  # which watches by itself whether the client stalls
        self.position = entry.offset
        self.context.node.load.delivered += len(entry.data)
        self._finished = True
        return Outcome.COMPLETE

    async def _finish(self) -> bool:
        """Return whether the last bytes may be handed over."""
        return await self.transfers.finish(self.transfer, joiner=self._joiner) is Answer.FINISHING

    async def _ended(self) -> Outcome:
        """Return how the transfer or its leg ended: it is not ours to hand over the last bytes of."""
        return (await self._touch()).outcome or Outcome.STORE_LOST

    def _fits(self, entry: Entry) -> bool:
        """Return whether the stream keeps to the declared length: no byte beyond it, and no end before it."""
        length = self.transfer.length
        return length is None or entry.offset == length or (entry.offset < length and entry.outcome is None)

    async def _begin(self, *, at_end: bool = False) -> None:
        """Send the headers, unless they were sent.

        They go out with the first entry; or a second after joining, once the upload's node has sent a heartbeat. Until
        then, if the upload turns out to be gone, the client can still get a status.
        """
        if not self._sink.begun:
            await self._sink.begin(self.transfer, at_end=at_end)

    async def _hand_over(self, data: Bytes) -> None:
        self._sending_since = monotonic()
        await self._sink.write(data)
        self._sending_since = None
