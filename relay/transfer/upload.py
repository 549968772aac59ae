"""The uploader's side of a transfer: from the request's body to the stream."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from functools import partial
from time import monotonic
from typing import Any

from relay import tracing
from relay.buffers import BATCH, Buffer, Bytes
from relay.cluster.progress import SETTLING, Meter, Progress
from relay.errors import ClientGone, Error, Problem, StoreUnavailable, problem_for_uploader
from relay.server.connection import Connection
from relay.server.intake import BodyIntake
from relay.states import Answer, Outcome, State
from relay.store.records import Ended, Ender, Final, Touched, Transfer, smaller
from relay.store.streams import JOINED, Ack, Stream
from relay.store.transfers import RESERVE_AHEAD
from relay.tasks import first
from relay.transfer.claiming import claim
from relay.transfer.context import Context
from relay.transfer.doubt import with_room
from relay.transfer.drain import Phase
from relay.transfer.side import BLOCK, Side, time_limit
from relay.transfer.supply import Supply
from relay.transfer.window import Window


class Upload(Side):
    """One PUT. `ResumableUpload` is one request of an upload whose uploader may return.

    `begin` is the byte offset in the file at which the request's body begins. `proof` is that of the client's `Access`;
    only a claim needs it.
    """

    #: The id of this request, if it is not the one that claimed the name.
    _sender = ""

    def __init__(
        self,
        context: Context,
        transfer: Transfer,
        body: AsyncIterator[bytes],
        client: Connection,
        *,
        begin: int = 0,
        proof: str = "",
    ) -> None:
        super().__init__(context, transfer, client, str(transfer.inquiry))
        self.looked = self._since
        self._proof = proof
        self._length: int | None = None
        self._intake = BodyIntake(body, client, Buffer(context.settings.chunk, context.blocks))
        self._supply = Supply(self._intake, context.rewind_budget, begin=begin)
        self._window = Window(context.settings.window, start=begin)
        #: None until a downloader has joined.
        self._stream: Stream | None = None
        self._most = 0
        self._rejoin_wait = context.settings.rejoin_wait
        #: Bytes of the token that are reserved for it, if the token may have a limited number.
        self._reserved = 0
        self._ack_id = JOINED.id
        #: The download that has joined, and the byte offset from which on it wants the file.
        self._joiner = ""
        self._start = 0
        self._meter: Meter | None = None
        #: Until when it waits for a downloader, in monotonic seconds.
        self._deadline = 0.0

    async def run(self, *, length: int | None, media_type: str, most: int = 0) -> int:
        """Claim the name, wait, stream, and settle. Return the byte offset in the file after the last byte sent.

        `length` is the length of the body in bytes, None if it is unknown, and `most` the maximum; 0 means unlimited.
        """
        self._most = smaller(most, self.transfer.max_upload)
        outcome: Outcome | None = Outcome.UPLOADER_GONE
        self._length = length
        with self._listener, self.client.on_lost(self._notice_disconnect), self.client.watched():
            try:
                outcome = (
                    await self._enter(media_type)
                    or await self._wait(seconds=self.context.settings.upload_wait)
                    or await self._stream_body()
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
                outcome = None  # the claim was refused, so there is nothing to settle
                raise
            finally:
                self._close_supply()
                if outcome is not None:
                    await self._settle(outcome)
        if outcome is Outcome.COMPLETE or self._is_part_done:
            return self._window.written
        await self._check_revoked(outcome)
        raise self._problem(outcome)

    def _problem(self, outcome: Outcome) -> Problem:
        """Return what the uploader is told about an outcome that is not complete."""
        seconds = time_limit(self.context.settings, outcome)
        return problem_for_uploader(outcome, sent=self._window.acknowledged, seconds=seconds, most=self._most)

    async def _settle(self, outcome: Outcome) -> None:
        tracing.add(received=self._intake.total, delivered=self._window.acknowledged)
        # The other side reads the chunks to their end, unless it is dead.
        unneeded = ("acks", "chunks") if outcome is Outcome.NODE_LOST else ("acks",)
        await self.context.endings.settle(
            self.transfer._replace(downloader=self.peer),
            outcome,
            Ender(sender=self._sender, position=self._window.acknowledged, unneeded=unneeded),
            seconds=monotonic() - self._since,
        )

    def _close_supply(self) -> None:
        self._supply.close()
        self.context.node.load.rewound += self._supply.rewound
        self.context.node.load.skipped += self._supply.skipped
        self.context.blocks.trim(users=len(self.context.node.load.uploads[State.STREAMING]))

    @property
    def has_begun(self) -> bool:
        """Whether any of the body has arrived, taken or not."""
        return self._intake.total > 0 or self.client.untaken > 0

    def progress(self, now: float) -> Progress:
        """Return how far it is at `now`, for operators."""
        return Progress(
            id=self.transfer.id,
            token=self.transfer.token,
            name=self.transfer.name,
            state=State.STREAMING if self.peer else State.WAITING,
            uploader=self.context.node.id,
            downloader=self.peer,
            length=self._file_length,
            delivered=self._window.acknowledged,
            rate=self._meter.read(self._window.acknowledged, now) if self._meter is not None else 0,
            seconds=round(now - self._since, 1),
            left=None if self.peer else round(self._deadline - now, 1),
            leg=self.transfer.leg,
        )

    @property
    def _file_length(self) -> int | None:
        """The length of the file, None if it is unknown."""
        return self._length

    def _enter(self, media_type: str) -> Coroutine[Any, Any, Outcome | None]:
        """Get the name for this request. Return how the transfer ended, if it has ended already. Raise Problem."""
        return self._claim(media_type, length=self._length)

    async def _claim(self, media_type: str, *, length: int | None) -> Outcome | None:
        """Claim the name. Return how the transfer ended, if it has ended already. Raise Problem."""
        answer = await claim(self.context, self.transfer, length=length, media_type=media_type, proof=self._proof)
        if isinstance(answer, Outcome):
            return answer
        self._reserved = answer.reserved
        self.transfer = self.transfer._replace(
            uploader=self.context.node.id,
            max_bytes=answer.max_bytes,
            max_upload=answer.max_upload,
        )
        self._most = smaller(self._most, answer.max_upload)
        return None

    @property
    def is_last(self) -> bool:
        """Whether the file ends where the body ends."""
        return True

    @property
    def _is_part_done(self) -> bool:
        """Whether the downloader has all of the body, and the file goes on in another request."""
        return not self.is_last and self._supply.is_exhausted and self._window.acknowledged == self._supply.position

    async def _wait(self, *, seconds: float, outcome: Outcome = Outcome.NO_DOWNLOADER) -> Outcome | None:
        """Wait for a downloader, and hold no connection to Redis. Until the first one has come, read none of the body.

        Return None when one has joined, otherwise how the wait ended: with `outcome` if nobody came in `seconds`. If a
        wake-up is lost, `Node.recheck` wakes us.
        """
        self._deadline = deadline = monotonic() + seconds
        with self._listed(self.context.node.load.uploads[State.WAITING]):
            while True:
                woken = await self._listener.wait(self._pause(deadline - monotonic()))
                if self.client.is_lost and self._client_matters():
                    raise ClientGone
                if self.context.gate.phase >= Phase.RELEASED:
                    return Outcome.DRAINED
                if monotonic() >= deadline:
                    answer = await self.context.endings.end(self.transfer, outcome, within=[State.WAITING])
                    if isinstance(answer, Final):
                        self._window.acknowledge(answer.delivered)
                        return outcome
                now = self._met() or await self._stand()
                if now.outcome is not None:
                    return now.outcome
                if now.state is State.STREAMING:
                    self.peer, self._joiner, self._start = now.downloader, now.joiner, now.start
                    self.context.metrics.wait_seconds.observe(monotonic() - self._since)
                    tracing.happened("joined", leg=now.leg, start=now.start, peer=now.downloader)
                    return None
                await self._answer(woken=woken)

    def _met(self) -> Touched | None:
        """Return how the transfer stands if the wake-up has said it: a download has joined this leg."""
        meeting, self._listener.meeting = self._listener.meeting, None
        if meeting is None or meeting.leg != self.transfer.leg:
            return None
        return Touched(None, State.STREAMING, meeting.node, start=meeting.start, joiner=meeting.joiner)

    def _pause(self, seconds: float) -> float:
        return self.client.probe.interval(seconds)

    async def _answer(self, *, woken: bool) -> None:
        """Vouch for our client once it has shown that it is there, or after nothing has contradicted it for a while."""
        probe = self.client.probe
        if woken:
            probe.ask(monotonic())
        if probe.is_asked and (not self._client_matters() or probe.look(monotonic())):
            probe.stop()
            with contextlib.suppress(StoreUnavailable):  # then the inquirer assumes that the client is there
                await self.transfers.vouch(self.transfer)

    async def _stream_body(self) -> Outcome:
        """Take in the body while it is streamed, in one leg or several. Return how the transfer ended."""
        if 0 < (self._length or 0) <= min(self.client.untaken, self.context.settings.chunk):  # it is here already
            return await self._receive() or await self._send()
        return await first(self._receive(), self._send())

    async def _send(self) -> Outcome:
        """Stream to the downloader, and again when one comes back. Return how the transfer ended."""
        while True:
            outcome: Outcome | None = await self._stream_leg()
            if outcome is Outcome.BROKEN:
                tracing.happened("interrupted", by="download", delivered=self._window.acknowledged)
                self.peer, self._stream = "", None
                outcome = await self._wait(seconds=self._rejoin_wait, outcome=Outcome.DOWNLOADER_GONE)
            if outcome is not None:
                return outcome

    async def _stream_leg(self) -> Outcome:
        """Run the loops of a streaming upload. Return how it, or this leg of it, ended."""
        if not self._supply.seek(self._start):
            return await self._cannot_go_back()
        self._window.restart(self._start)
        self._ack_id = JOINED.id
        # What the downloader has already is not transferred now.
        self._meter = Meter(monotonic(), total=self._start, settling=SETTLING)
        self._stream = stream = self.context.stream(self.transfer, self.peer)
        with self._listed(self.context.node.load.uploads[State.STREAMING]):
            try:
                return await self._guarded(self._write(stream))
            finally:
                self.context.metrics.transfer_seconds.observe(monotonic() - self._since)

    async def _cannot_go_back(self) -> Outcome:
        """Return how it ends, now that the downloader wants bytes that are gone: both have to start again."""
        return Outcome.DOWNLOADER_GONE

    async def _touch(self) -> Touched:
        written = self._stream.written if self._stream else ""
        touched = await self.transfers.touch(self.transfer, written=written, sender=self._sender)
        self._window.acknowledge(touched.position)
        return touched

    def _read_stream(self) -> str:
        return self.transfer.keys.acks

    async def _on_node_lost(self) -> Outcome | None:
        answer = await self.context.endings.leave(self.transfer, joiner=self._joiner)
        return await super()._on_node_lost() if answer is Answer.KEPT else Outcome.BROKEN

    async def _try_to_end(self, outcome: Outcome) -> Outcome | None:
        """End it, unless the download hands over the last bytes: then that side decides how it ends."""
        answer = await self.context.endings.end(self.transfer, outcome, Ender(sender=self._sender))
        if answer is Answer.KEPT:
            return None
        return outcome if isinstance(answer, Final) else (await self._touch()).outcome

    def _learn(self, ended: Ended) -> Outcome:
        self._window.acknowledge(ended.delivered)
        return super()._learn(ended)

    def _client_matters(self) -> bool:
        return not self._intake.is_whole  # once the whole body is here, the transfer can complete without the uploader

    def _client_progress(self) -> int:
        return self._intake.total

    def _stalled_since(self) -> float | None:
        return self._intake.waiting_since

    async def _receive(self) -> Outcome | None:
        """Take in the body, as fast as chunks are written."""
        is_whole = await self._intake.fill(length=self._length, limit=self._most or None)
        return None if is_whole else Outcome.TOO_LARGE

    async def _write(self, stream: Stream) -> Outcome:
        """Copy from the intake to the stream, within the window; then write the end, and wait until it is confirmed."""
        while True:
            await self._supply.wait()
            if self._supply.is_short:  # than what the downloader has, so it has another file
                return Outcome.DOWNLOADER_GONE
            chunks = self._take()
            if not await self._reserve_written():
                return Outcome.TOO_LARGE
            taken = self._supply.is_exhausted  # asked now: if the body ends while this is written, its end is not
            whole = taken and self.is_last
            if outcome := await self._record_ack(await stream.append(chunks, offset=self._window.written, whole=whole)):
                return outcome
            while taken or not self._window.is_open:
                if outcome := await self._wait_for_ack(stream):
                    return outcome
                if self._is_part_done:
                    return Outcome.UPLOADER_GONE  # until its next request

    def _take(self) -> list[Bytes]:
        """Take the chunks to write next: as many of those in the intake as the window has room for."""
        chunks: list[Bytes] = []
        self._window.size = self.context.window(self.peer)
        self._intake.set_capacity(min(BATCH * self.context.settings.chunk, self._window.size))
        while len(chunks) < BATCH and self._window.is_open and (chunk := self._supply.take(full_only=bool(chunks))):
            chunks.append(chunk)
            self._window.write(len(chunk))
        self.context.node.load.received += sum(map(len, chunks))
        return chunks

    async def _reserve_written(self) -> bool:
        """Reserve bytes of the token for all that is about to be written. Return False if the token has too few."""
        is_limited = self.context.settings.token_bytes or self.transfer.max_bytes
        if not is_limited or self._window.written <= self._reserved:
            return True
        reserve = partial(self.transfers.reserve, self.transfer, total=self._window.written + RESERVE_AHEAD)
        try:
            self._reserved = await with_room(self.context, self.transfer.token, reserve)
        except Problem as problem:
            if problem.error is not Error.SPENT:
                raise
        self._most = self._reserved  # which the error names
        return self._window.written <= self._reserved

    async def _wait_for_ack(self, stream: Stream) -> Outcome | None:
        """Wait a while for the downloader's progress. Return how the transfer ended, if it has."""
        ack = await stream.acks(after=self._ack_id, timeout=BLOCK)
        return await self._record_ack(ack) if ack is not None else None

    async def _record_ack(self, ack: Ack | None) -> Outcome | None:
        """Record an acknowledgement; None means that the stream is gone. Return how the transfer ended, if it has."""
        if ack is None:
            return (await self._touch()).outcome or Outcome.STORE_LOST
        self._ack_id = ack.id
        self._window.acknowledge(ack.position)
        return ack.outcome
