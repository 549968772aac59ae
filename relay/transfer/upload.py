"""The uploader's side of a transfer: body → store."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from time import monotonic

from relay.buffers import BATCH, Buffer, Bytes
from relay.cluster.inbox import Listener
from relay.cluster.progress import Meter, Progress
from relay.errors import ClientGone, Error, Problem, StoreUnavailable, problem_for_uploader
from relay.server.connection import Connection
from relay.server.intake import BodyIntake
from relay.states import Answer, Outcome, State
from relay.store.records import Final, Holder, Touched, Transfer
from relay.store.streams import Ack, Stream
from relay.tasks import first
from relay.transfer.drain import Phase
from relay.transfer.side import BLOCK, Side, time_limit
from relay.transfer.window import Window
from relay.transfer.work import Work

#: Seconds that an upload whose name is taken gives the other's node to vouch for its client, more than a `Probe` takes;
#: and between asking.
_DOUBT, _DOUBT_PAUSE = 2.0, 0.05


class Upload(Side):
    """One PUT."""

    def __init__(self, work: Work, transfer: Transfer, body: AsyncIterator[bytes], client: Connection) -> None:
        super().__init__(work, transfer, client)
        self.looked = self._since
        self._length: int | None = None
        self._intake = BodyIntake(body, client, Buffer(work.settings.chunk, work.blocks))
        self._window = Window(work.settings.window)
        #: There from when a downloader has joined.
        self._stream: Stream | None = None
        self._most = 0
        self._ack_id = "0-1"
        self._meter = Meter(monotonic())

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
                        seconds=monotonic() - self._since,
                    )
        if outcome is Outcome.COMPLETE:
            return self._window.written
        settings = self.work.settings
        raise problem_for_uploader(
            outcome, sent=self._window.acknowledged, seconds=time_limit(settings, outcome), most=self._most
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
        deadline, asked = monotonic() + _DOUBT, None
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
            elif answer.vouched >= asked or monotonic() > deadline:
                raise Problem(Error.NAME_IN_USE)
            else:
                await self.work.node.send_wake(holder.uploader, holder.question)
                await asyncio.sleep(_DOUBT_PAUSE)

    async def _wait(self, listener: Listener) -> Outcome | None:
        """Waits for a downloader, with nothing of the body taken and no connection to Redis held.

        Where a wake-up is lost, the node's rounds (see `Node`) wake us.
        Answers None when one has joined, else how the wait ended.
        """
        deadline = monotonic() + self.work.settings.upload_wait
        with self._held(self.work.node.uploads[State.WAITING]):
            while True:
                woken = await listener.wait(self._patience(deadline - monotonic()))
                if self.client.is_lost:
                    raise ClientGone
                if self.work.phase >= Phase.RELEASED:
                    return Outcome.DRAINED
                if monotonic() >= deadline:
                    answer = await self.work.end(self.transfer, Outcome.NO_DOWNLOADER, only_waiting=True)
                    if isinstance(answer, Final):
                        return Outcome.NO_DOWNLOADER
                now = await self._touch()
                if now.outcome is not None or now.state is State.STREAMING:
                    self.peer = now.downloader
                    if now.outcome is None:
                        self.work.metrics.wait_seconds.observe(monotonic() - self._since)
                    return now.outcome
                await self._answer(woken=woken)

    def _patience(self, seconds: float) -> float:
        return self.client.probe.interval(seconds)

    async def _answer(self, *, woken: bool) -> None:
        """Vouches for our client when it has shown that it lives, or nothing has spoken against it for a while."""
        probe = self.client.probe
        if woken:
            probe.ask(monotonic())
        if probe.is_asked and (not self._client_matters() or probe.look(monotonic())):
            probe.stop()
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
        return not self._intake.is_whole  # once all of it is with us, the transfer can complete without the uploader

    def _client_progress(self) -> int:
        return self._intake.total

    def _owed_since(self) -> float | None:
        return self._intake.waiting_since

    async def _receive(self) -> Outcome | None:
        """Take in the body, as fast as chunks are written."""
        is_whole = await self._intake.fill(length=self._length, limit=self._most)
        return None if is_whole else Outcome.TOO_LARGE

    async def _write(self, stream: Stream) -> Outcome:
        """Intake → stream, within the window; then the end, and its acknowledgement."""
        while True:
            await self._intake.wait()
            chunks = self._take()
            whole = self._intake.is_exhausted
            if outcome := await self._acked(await stream.append(chunks, end=self._window.written, whole=whole)):
                return outcome
            while whole or not self._window.is_open:
                if outcome := await self._acknowledged(stream):
                    return outcome

    def _take(self) -> list[Bytes]:
        """What is to be written next: of the chunks that there are, as many as the window has room for."""
        chunks: list[Bytes] = []
        self._window.size = self.work.window()
        self._intake.set_capacity(min(BATCH * self.work.settings.chunk, self._window.size))
        while len(chunks) < BATCH and self._window.is_open and (chunk := self._intake.take(full_only=bool(chunks))):
            chunks.append(chunk)
            self._window.write(len(chunk))
        self.work.node.received += sum(map(len, chunks))
        return chunks

    async def _acknowledged(self, stream: Stream) -> Outcome | None:
        """Waits a while for the downloader's progress; answers how it ended, if it has."""
        ack = await stream.acks(after=self._ack_id, timeout=BLOCK)
        return await self._acked(ack) if ack is not None else None

    async def _acked(self, ack: Ack | None) -> Outcome | None:
        """Takes note of an acknowledgement; None for the stream being gone."""
        if ack is None:
            return (await self._touch()).outcome or Outcome.STORE_LOST
        self._ack_id = ack.id
        self._window.acknowledge(ack.position)
        return ack.outcome
