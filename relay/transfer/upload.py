"""The uploader's side of a transfer: from the request's body to the stream."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from time import monotonic

from relay.buffers import BATCH, Buffer, Bytes
from relay.cluster.inbox import Listener
from relay.cluster.progress import Meter, Progress
from relay.errors import ClientGone, Error, Problem, StoreUnavailable, problem_for_uploader
from relay.server.connection import Connection
from relay.server.intake import BodyIntake
from relay.states import Answer, Outcome, State
from relay.store.records import Claimed, Final, Touched, Transfer
from relay.store.streams import Ack, Stream
from relay.store.transfers import RESERVE_AHEAD
from relay.tasks import first
from relay.transfer.context import Context
from relay.transfer.doubt import PATIENCE, confirm, with_room
from relay.transfer.drain import Phase
from relay.transfer.side import BLOCK, Side, time_limit
from relay.transfer.window import Window


class Upload(Side):
    """One PUT."""

    def __init__(self, context: Context, transfer: Transfer, body: AsyncIterator[bytes], client: Connection) -> None:
        super().__init__(context, transfer, client)
        self.looked = self._since
        self._length: int | None = None
        self._intake = BodyIntake(body, client, Buffer(context.settings.chunk, context.blocks))
        self._window = Window(context.settings.window)
        #: None until a downloader has joined.
        self._stream: Stream | None = None
        self._most = 0
        #: Bytes of the token that are reserved for it, if the token may have a limited number.
        self._reserved = 0
        self._ack_id = "0-1"
        self._meter = Meter(monotonic())

    async def run(self, *, length: int | None, media_type: str, most: int = 0) -> int:
        """Claim the name, wait, stream, and settle. Return the bytes sent.

        `most` is the maximum size of the body in bytes; 0 means unlimited.
        """
        self._most = most
        outcome: Outcome | None = Outcome.UPLOADER_GONE
        self._length = length
        with (
            self.context.node.inbox.listening(self.transfer.id, str(self.transfer.inquiry)) as listener,
            self._wake_on_disconnect(listener),
            self.client.watched(),
        ):
            try:
                outcome = (
                    await self._claim(length=length, media_type=media_type)
                    or await self._wait(listener)
                    or await self._stream_body(listener)
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
                if outcome is not None:
                    await self._settle(outcome)
        if outcome is Outcome.COMPLETE:
            return self._window.written
        await self._check_revoked(outcome)
        settings = self.context.settings
        raise problem_for_uploader(
            outcome, sent=self._window.acknowledged, seconds=time_limit(settings, outcome), most=self._most
        )

    async def _settle(self, outcome: Outcome) -> None:
        # The other side reads the chunks to their end, unless it has done so, or is dead.
        is_last = outcome in (Outcome.COMPLETE, Outcome.NODE_LOST)
        unneeded = ("acks", "chunks") if is_last else ("acks",)
        await self.context.endings.settle(
            replace(self.transfer, downloader=self.peer),
            outcome,
            *unneeded,
            position=self._window.acknowledged,
            seconds=monotonic() - self._since,
        )

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
            length=self._length,
            delivered=self._window.acknowledged,
            rate=self._meter.read(self._window.acknowledged, now),
            seconds=round(now - self._since, 1),
        )

    async def _claim(self, *, length: int | None, media_type: str) -> Outcome | None:
        """Claim the name, and wake the downloads that wait for it. Return how it ended, if it has ended already.

        If another upload holds the name, make sure that its client is still there before refusing this one.
        """
        deadline, use = monotonic() + PATIENCE, True
        while True:
            answer = await with_room(
                self.context,
                self.transfer.token,
                partial(
                    self.transfers.claim,
                    self.transfer,
                    node=self.context.node.id,
                    length=length,
                    media_type=media_type,
                    use=use,
                ),
            )
            if isinstance(answer, Outcome):
                return answer
            if isinstance(answer, Claimed):
                self._reserved = answer.reserved
                self.transfer = replace(self.transfer, uploader=self.context.node.id)
                self.context.node.load.used_tokens.add(self.transfer.token)
                for node in answer.wanted:
                    await self.context.node.inbox.send(node, self.transfer.keys.transfer)
                return None
            use = False
            if monotonic() > deadline or await confirm(self.context, answer, trust=0) is not None:
                raise Problem(Error.NAME_IN_USE)

    async def _wait(self, listener: Listener) -> Outcome | None:
        """Wait for a downloader. Meanwhile read none of the body, and hold no connection to Redis.

        Return None when one has joined, otherwise how the wait ended. If a wake-up is lost, `Node.recheck` wakes us.
        """
        deadline = monotonic() + self.context.settings.upload_wait
        with self._listed(self.context.node.load.uploads[State.WAITING]):
            while True:
                woken = await listener.wait(self._pause(deadline - monotonic()))
                if self.client.is_lost:
                    raise ClientGone
                if self.context.gate.phase >= Phase.RELEASED:
                    return Outcome.DRAINED
                if monotonic() >= deadline:
                    answer = await self.context.endings.end(self.transfer, Outcome.NO_DOWNLOADER, only_waiting=True)
                    if isinstance(answer, Final):
                        return Outcome.NO_DOWNLOADER
                now = await self._touch()
                if now.outcome is not None or now.state is State.STREAMING:
                    self.peer = now.downloader
                    if now.outcome is None:
                        self.context.metrics.wait_seconds.observe(monotonic() - self._since)
                    return now.outcome
                await self._answer(woken=woken)

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

    async def _stream_body(self, listener: Listener) -> Outcome:
        """Run the loops of a streaming upload. Return how it ended."""
        self._stream = stream = self.context.stream(self.transfer, self.peer)
        with (
            self._listed(self.context.node.load.uploads[State.STREAMING]),
            self.context.metrics.transfer_seconds.time(),
        ):
            return await first(self._receive(), self._write(stream), self._keep_alive(listener))

    async def _touch(self) -> Touched:
        touched = await self.transfers.touch(self.transfer, written=self._stream.written if self._stream else "")
        self._window.acknowledge(touched.position)
        return touched

    async def _try_to_end(self, outcome: Outcome) -> Outcome | None:
        """End it, unless the download hands over the last bytes: then that side decides how it ends."""
        answer = await self.context.endings.end(self.transfer, outcome)
        if answer is Answer.KEPT:
            return None
        return outcome if isinstance(answer, Final) else (await self._touch()).outcome

    def _client_matters(self) -> bool:
        return not self._intake.is_whole  # once the whole body is here, the transfer can complete without the uploader

    def _client_progress(self) -> int:
        return self._intake.total

    def _stalled_since(self) -> float | None:
        return self._intake.waiting_since

    async def _receive(self) -> Outcome | None:
        """Take in the body, as fast as chunks are written."""
        is_whole = await self._intake.fill(length=self._length, limit=self._most)
        return None if is_whole else Outcome.TOO_LARGE

    async def _write(self, stream: Stream) -> Outcome:
        """Copy from the intake to the stream, within the window; then write the end, and wait until it is confirmed."""
        while True:
            await self._intake.wait()
            chunks = self._take()
            if not await self._reserve_written():
                return Outcome.TOO_LARGE
            whole = self._intake.is_exhausted
            if outcome := await self._record_ack(await stream.append(chunks, offset=self._window.written, whole=whole)):
                return outcome
            while whole or not self._window.is_open:
                if outcome := await self._wait_for_ack(stream):
                    return outcome

    def _take(self) -> list[Bytes]:
        """Take the chunks to write next: as many of those in the intake as the window has room for."""
        chunks: list[Bytes] = []
        self._window.size = self.context.window()
        self._intake.set_capacity(min(BATCH * self.context.settings.chunk, self._window.size))
        while len(chunks) < BATCH and self._window.is_open and (chunk := self._intake.take(full_only=bool(chunks))):
            chunks.append(chunk)
            self._window.write(len(chunk))
        self.context.node.load.received += sum(map(len, chunks))
        return chunks

    async def _reserve_written(self) -> bool:
        """Reserve bytes of the token for all that is about to be written. Return False if the token has too few."""
        if not self.context.settings.token_bytes or self._window.written <= self._reserved:
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
