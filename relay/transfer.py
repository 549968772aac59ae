"""The two sides of a transfer, usually on two nodes: body → store, and store → body.

Each side is one object with one `run`, and runs its loops side by side: one moves bytes, one keeps the
transfer alive and watches for its end from outside.
"""

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any, Protocol

from relay.connection import Connection
from relay.errors import Error, Problem, StoreUnavailable, problem_for_downloader, problem_for_uploader
from relay.flow import BATCH, Buffer, Bytes, Meter, Window, follows
from relay.nodes import Listener
from relay.overview import Progress
from relay.settings import Settings
from relay.states import Answer, Outcome, State
from relay.store import TOUCH, Final, Holder, Touched, Transfer
from relay.streams import Ack, Entry, Stream
from relay.tasks import first
from relay.work import Phase, Work

#: Seconds one read of a stream blocks.
_BLOCK = 2.0
#: Seconds a joined download waits for the first entry before its headers go out regardless.
_FIRST_ENTRY = 1.0
#: Seconds that an upload whose name is taken gives the other's node to vouch for its client, and between asking.
_DOUBT, _DOUBT_PAUSE = 2.0, 0.05
#: Seconds for which a client that may have left behind unread bytes is probed before its node vouches for it
#: regardless (less than _DOUBT), and between probes.
_PROBING, _PROBE_PAUSE = 1.5, 0.3


class ClientGone(Exception):
    """The client of this side has left."""


class Sink(Protocol):
    """Where a download goes: the response."""

    begun: bool

    def check(self, transfer: Transfer) -> None:
        """Raises Problem where this client cannot take such a transfer; nothing is joined then."""

    async def begin(self, transfer: Transfer) -> None:
        """Sends the headers."""

    async def write(self, data: Bytes) -> None:
        """Hands over some bytes; returns when there is room for more.  Raises ClientGone."""

    async def approach(self, data: Bytes) -> Bytes:
        """Hands over so much of the last bytes that the rest will not take long; answers what is left for `finish`.

        Raises ClientGone.
        """

    async def finish(self, data: Bytes) -> None:
        """Hands over the last bytes and completes the response; returns when the client has all of it.

        Raises ClientGone.
        """

    def progress(self) -> int:
        """A number that grows whenever the client takes something."""


class _Side:
    """What both sides of a transfer have: the other side's node to watch, and a client that may stall."""

    def __init__(self, work: Work, transfer: Transfer, client: Connection) -> None:
        self.work = work
        self.store = work.store
        self.transfer = transfer
        self.client = client
        self.peer = ""
        #: Since when (monotonic seconds) it is in its state.
        self._since = _now()
        #: Since when (monotonic seconds) the client owes us something: bytes to send, or to take.
        self._owes_since: float | None = None

    @contextlib.contextmanager
    def _held(self, sides: dict[Any, None]) -> Iterator[None]:
        """Within it, this is among those `sides` that the node holds."""
        self._since, sides[self] = _now(), None
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

        with self.client.telling(left):
            yield

    def _client_matters(self) -> bool:
        return True

    def _client_progress(self) -> int:
        return 0

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
        begun, progress, since = _now(), self._client_progress(), _now()
        while True:
            woken = await listener.wait(self._patience(min(TOUCH, stall, most)))
            if self.client.is_lost and self._client_matters():
                raise ClientGone
            outcome = None
            if self._owes_since is None or self._client_progress() != progress:
                progress, since = self._client_progress(), _now()
            elif _now() - max(since, self._owes_since) >= stall:
                outcome = Outcome.STALLED
            if _now() - begun >= most:
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


class Upload(_Side):
    """One PUT."""

    def __init__(self, work: Work, transfer: Transfer, body: AsyncIterator[bytes], client: Connection) -> None:
        super().__init__(work, transfer, client)
        self.looked = self._since
        self._body = body
        self._length: int | None = None
        self._buffer = Buffer(work.settings.chunk, work.blocks)
        self._arrived = asyncio.Event()
        self._taken = asyncio.Event()
        self._whole = False
        self._window = Window(work.settings.window)
        #: There from when a downloader has joined.
        self._stream: Stream | None = None
        self._most = 0
        self._ack_id = "0-1"
        #: Since when (monotonic seconds) somebody who wants our name has been asking whether our client lives.
        self._asked: float | None = None
        self._meter = Meter(_now())

    async def run(self, *, length: int | None, media_type: str, most: int = 0) -> int:
        """Claims, waits, streams, settles.  Answers the bytes sent; more than `most`, where that is not 0, end it."""
        self._most = most
        outcome: Outcome | None = Outcome.UPLOADER_GONE
        self._length = length
        with (
            self.work.node.listening(self.transfer.id, self.transfer.question) as listener,
            self._telling(listener),
            self.client.watched(),
        ):
            try:
                outcome = (
                    await self._claim(length=length, media_type=media_type)
                    or await self._wait(listener)
                    or await self._send(listener)
                )
            except ClientGone:
                outcome = Outcome.UPLOADER_GONE
                raise
            except asyncio.CancelledError:
                outcome = Outcome.DRAINED
                raise
            except StoreUnavailable:
                outcome = Outcome.STORE_LOST
                raise
            except Problem:
                outcome = None  # the claim was refused: there is nothing to settle
                raise
            finally:
                if outcome is not None:
                    # The other side reads its stream to the end, unless it has, or is not there any more.
                    is_last = outcome in (Outcome.COMPLETE, Outcome.NODE_LOST)
                    mine = ("acks", "chunks") if is_last else ("acks",)
                    await self.work.settle(
                        replace(self.transfer, downloader=self.peer),
                        outcome,
                        *mine,
                        position=self._window.acknowledged,
                        seconds=_now() - self._since,
                    )
        if outcome is Outcome.COMPLETE:
            return self._window.written
        settings = self.work.settings
        raise problem_for_uploader(
            outcome, sent=self._window.acknowledged, seconds=_time_limit(settings, outcome), most=self._most
        )

    def progress(self, now: float) -> Progress:
        """How far it is at `now`, for operators."""
        return Progress(
            id=self.transfer.id,
            token=self.transfer.token,
            name=self.transfer.name,
            state=State.STREAMING if self.peer else State.WAITING,
            uploader=self.work.node.id,
            downloader=self.peer,
            length=self._length,
            delivered=self._window.acknowledged,
            rate=self._meter.read(self._window.acknowledged, now),
            seconds=round(now - self._since, 1),
        )

    async def _claim(self, *, length: int | None, media_type: str) -> Outcome | None:
        """Claims the name, and wakes downloads that wait for it.  Answers how it ended, if it has already.

        A claim whose node is dead is cleared away.  Any other may be of a client that has left without its
        node noticing: our interest makes that node look, and vouch for its client or end the claim.
        """
        deadline, asked = _now() + _DOUBT, None
        while True:
            answer = await self.store.claim(
                self.transfer, node=self.work.node.id, length=length, media_type=media_type, use=asked is None
            )
            if isinstance(answer, Outcome):
                return answer
            if not isinstance(answer, Holder):
                self.transfer = replace(self.transfer, uploader=self.work.node.id)
                self.work.node.used.add(self.transfer.token)
                for node in answer:
                    await self.work.node.send_wake(node, self.transfer.keys.transfer)
                return None
            asked = answer.now if asked is None else asked
            holder = answer.transfer
            if not await self.work.node.is_alive(holder.decider):
                await self.work.end(holder, Outcome.NODE_LOST)
            elif answer.vouched >= asked or _now() > deadline:
                raise Problem(Error.NAME_IN_USE)
            else:
                await self.work.node.send_wake(holder.uploader, holder.question)
                await asyncio.sleep(_DOUBT_PAUSE)

    async def _wait(self, listener: Listener) -> Outcome | None:
        """Waits for a downloader, with nothing of the body taken and no connection to Redis held.

        Where a wake-up is lost, the node's rounds (see `Node`) wake us.
        Answers None when one has joined, else how the wait ended.
        """
        deadline = _now() + self.work.settings.upload_wait
        with self._held(self.work.node.uploads[State.WAITING]):
            while True:
                woken = await listener.wait(self._patience(deadline - _now()))
                if self.client.is_lost:
                    raise ClientGone
                if self.work.phase >= Phase.RELEASED:
                    return Outcome.DRAINED
                if _now() >= deadline:
                    answer = await self.work.end(self.transfer, Outcome.NO_DOWNLOADER, only_waiting=True)
                    if isinstance(answer, Final):
                        return Outcome.NO_DOWNLOADER
                now = await self._touch()
                if now.outcome is not None or now.state is State.STREAMING:
                    self.peer = now.downloader
                    if now.outcome is None:
                        self.work.metrics.wait_seconds.observe(_now() - self._since)
                    return now.outcome
                await self._answer(woken=woken)

    def _patience(self, seconds: float) -> float:
        return seconds if self._asked is None else min(_PROBE_PAUSE, seconds)

    async def _answer(self, *, woken: bool) -> None:
        """Vouches for our client when it has shown that it lives, or nothing has spoken against it for a while."""
        if woken and self._asked is None:
            self._asked = _now()
        if self._asked is None:
            return
        if not self._client_matters() or self.client.probe() or _now() >= self._asked + _PROBING:
            self._asked = None
            self.client.stop_probing()
            with contextlib.suppress(StoreUnavailable):  # without our word, who asked believes that it lives
                await self.store.vouch(self.transfer)

    async def _send(self, listener: Listener) -> Outcome:
        self._stream = stream = self.work.stream(self.transfer, self.peer)
        with self._held(self.work.node.uploads[State.STREAMING]), self.work.metrics.transfer_seconds.time():
            return await first(self._receive(), self._write(stream), self._keep(listener))

    async def _touch(self) -> Touched:
        touched = await self.store.touch(self.transfer, written=self._stream.written if self._stream else "")
        self._window.acknowledge(touched.position)
        return touched

    async def _end(self, outcome: Outcome) -> Outcome | None:
        """Not while the download hands over the last bytes: how it ends then is for that side to say."""
        answer = await self.work.end(self.transfer, outcome)
        if answer is Answer.KEPT:
            return None
        return outcome if isinstance(answer, Final) else (await self._touch()).outcome

    def _client_matters(self) -> bool:
        return not self._whole  # once all of it is with us, the transfer can complete without the uploader

    def _client_progress(self) -> int:
        return self._buffer.total

    async def _receive(self) -> Outcome | None:
        """Body → buffer, as fast as the buffer empties."""
        self._owes_since = _now()
        async for piece in self._body:
            self._owes_since = None
            self._buffer.add(piece)
            if 0 < self._most < self._buffer.total:
                return Outcome.TOO_LARGE
            self._arrived.set()
            # At once: what arrives while something is awaited comes by the parser.
            if self._length is not None and self._buffer.total < self._length and await self._pour():
                break
            await self._until_taken()
            self._owes_since = _now()
        self._owes_since = None
        if self._length is not None and self._buffer.total != self._length:
            raise ClientGone  # whatever the server says, this is not all of it
        self._whole = True
        self._arrived.set()
        return None

    async def _pour(self) -> bool:
        """The rest of a body of known length, straight from its socket; False where that cannot be."""
        left, over = (self._length or 0) - self._buffer.total, asyncio.Event()

        def arrived() -> None:
            self._owes_since = None if self._buffer.full else _now()
            self._arrived.set()
            if self._buffer.total == self._length or self.client.is_lost:
                over.set()

        with self.client.pouring(self._buffer, left, arrived) as can_pour:
            if can_pour:
                self._owes_since = None if self._buffer.full else _now()
                await over.wait()
        return can_pour

    async def _until_taken(self) -> None:
        """Waits until the buffer has room."""
        while self._buffer.full:
            self._taken.clear()
            await self._taken.wait()

    async def _write(self, stream: Stream) -> Outcome:
        """Buffer → stream, within the window; then the end, and its acknowledgement."""
        while True:
            while not self._buffer and not self._whole:
                self._arrived.clear()
                await self._arrived.wait()
            chunks = self._take()
            whole = self._whole and not self._buffer
            if outcome := await self._acked(await stream.append(chunks, end=self._window.written, whole=whole)):
                return outcome
            while whole or not self._window.is_open:
                if outcome := await self._acknowledged(stream):
                    return outcome

    def _take(self) -> list[Bytes]:
        """What is to be written next: of the chunks that there are, as many as the window has room for."""
        chunks: list[Bytes] = []
        while (
            (self._buffer.has_pieces or (self._buffer and not chunks)) and len(chunks) < BATCH and self._window.is_open
        ):
            chunks.append(self._buffer.take())
            self._window.write(len(chunks[-1]))
        self.work.node.received += sum(map(len, chunks))
        self._taken.set()
        if self._owes_since is None and not self._whole and not self._buffer.full:
            self._owes_since = _now()
            self.client.pour_on()
        return chunks

    async def _acknowledged(self, stream: Stream) -> Outcome | None:
        """Waits a while for the downloader's progress; answers how it ended, if it has."""
        ack = await stream.acks(after=self._ack_id, timeout=_BLOCK)
        return await self._acked(ack) if ack is not None else None

    async def _acked(self, ack: Ack | None) -> Outcome | None:
        """Takes note of an acknowledgement; None for the stream being gone."""
        if ack is None:
            return (await self._touch()).outcome or Outcome.STORE_LOST
        self._ack_id = ack.id
        self._window.acknowledge(ack.position)
        return ack.outcome


class Download(_Side):
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

    async def run(self) -> Outcome:
        """Wakes the uploader, streams, settles.  Raises Problem while nothing has been sent."""
        outcome = Outcome.DOWNLOADER_GONE
        with (
            self.work.node.listening(self.transfer.id) as listener,
            self._telling(listener),
            self._held(self.work.node.downloads),
        ):
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
            raise problem_for_downloader(outcome, seconds=_time_limit(self.work.settings, outcome))
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
                timeout=_BLOCK if self._sink.begun else _FIRST_ENTRY,
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
            self._owes_since = _now()
            data = await self._sink.approach(data)
            self._owes_since = None
        answer = await self.store.finish(self.transfer, joiner=self._joiner)
        if self._decided is not None:
            return self._decided
        if answer is not Answer.FINISHING:
            return (await self._touch()).outcome or Outcome.STORE_LOST
        self._finishing = True
        await self._begin()
        await self._sink.finish(data)  # which watches the client's progress by itself
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
        self._owes_since = _now()
        await self._sink.write(data)
        self._owes_since = None


def _time_limit(settings: Settings, outcome: Outcome) -> float:
    """The seconds that have passed where a transfer ended for the time it took."""
    limits = {Outcome.NO_DOWNLOADER: settings.upload_wait, Outcome.TOO_LONG: settings.max_duration}
    return limits.get(outcome, settings.stall)


def _now() -> float:
    return time.monotonic()
