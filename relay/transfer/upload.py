"""The uploader's side of a transfer: from the request's body to the stream."""

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
from relay.states import Answer, Outcome, State
from relay.store.records import Final, Holder, Touched, Transfer
from relay.store.streams import Ack, Stream
from relay.tasks import first
from relay.transfer.context import Context
from relay.transfer.drain import Phase
from relay.transfer.side import BLOCK, Side, time_limit
from relay.transfer.window import Window

#: Seconds that an upload whose name is taken gives the holder's node to vouch for its client; and between inquiries.
_DOUBT, _DOUBT_PAUSE = 2.0, 0.05
#: Seconds for which a node probes a client that may have left unread bytes behind, before it vouches for the client
#: regardless (less than _DOUBT); and between probes.
_PROBING, _PROBE_PAUSE = 1.5, 0.3


class Upload(Side):
    """One PUT."""

    def __init__(self, context: Context, transfer: Transfer, body: AsyncIterator[bytes], client: Connection) -> None:
        super().__init__(context, transfer, client)
        self.looked = self._since
        self._body = body
        self._length: int | None = None
        self._buffer = Buffer(context.settings.chunk, context.blocks)
        self._arrived = asyncio.Event()
        self._taken = asyncio.Event()
        self._whole = False
        self._window = Window(context.settings.window)
        #: There from when a downloader has joined.
        self._stream: Stream | None = None
        self._most = 0
        self._ack_id = "0-1"
        #: Since when (monotonic seconds) somebody who wants our name has been asking whether our client lives.
        self._asked: float | None = None
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
                outcome = None  # the claim was refused, so there is nothing to settle
                raise
            finally:
                if outcome is not None:
                    # The other side reads the chunks to their end, unless it has done so, or is dead.
                    is_last = outcome in (Outcome.COMPLETE, Outcome.NODE_LOST)
                    mine = ("acks", "chunks") if is_last else ("acks",)
                    await self.context.endings.settle(
                        replace(self.transfer, downloader=self.peer),
                        outcome,
                        *mine,
                        position=self._window.acknowledged,
                        seconds=monotonic() - self._since,
                    )
        if outcome is Outcome.COMPLETE:
            return self._window.written
        settings = self.context.settings
        raise problem_for_uploader(
            outcome, sent=self._window.acknowledged, seconds=time_limit(settings, outcome), most=self._most
        )

    @property
    def has_begun(self) -> bool:
        """Return whether any of the body has arrived, taken or not."""
        return self._buffer.total > 0 or self.client.has_body

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

        If the name is held by a claim whose node is dead, end that claim. Any other claim may belong to a client that
        has left without its node noticing: our inquiry makes that node check, and vouch for its client or end the
        claim.
        """
        deadline, asked = monotonic() + _DOUBT, None
        while True:
            answer = await self.transfers.claim(
                self.transfer, node=self.context.node.id, length=length, media_type=media_type, use=asked is None
            )
            if isinstance(answer, Outcome):
                return answer
            if not isinstance(answer, Holder):
                self.transfer = replace(self.transfer, uploader=self.context.node.id)
                self.context.node.load.used_tokens.add(self.transfer.token)
                for node in answer:
                    await self.context.node.inbox.send(node, self.transfer.keys.transfer)
                return None
            asked = answer.now if asked is None else asked
            holder = answer.transfer
            if not await self.context.node.is_alive(holder.decider):
                await self.context.endings.end(holder, Outcome.NODE_LOST)
            elif answer.vouched >= asked or monotonic() > deadline:
                raise Problem(Error.NAME_IN_USE)
            else:
                await self.context.node.inbox.send(holder.uploader, str(holder.inquiry))
                await asyncio.sleep(_DOUBT_PAUSE)

    async def _wait(self, listener: Listener) -> Outcome | None:
        """Wait for a downloader. Meanwhile read none of the body, and hold no connection to Redis.

        Return None when one has joined, otherwise how the wait ended. If a wake-up is lost, `Node.recheck` wakes us.
        """
        deadline = monotonic() + self.context.settings.upload_wait
        with self._listed(self.context.node.load.uploads[State.WAITING]):
            while True:
                woken = await listener.wait(self._patience(deadline - monotonic()))
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

    def _patience(self, seconds: float) -> float:
        return seconds if self._asked is None else min(_PROBE_PAUSE, seconds)

    async def _answer(self, *, woken: bool) -> None:
        """Vouch for our client once it has shown that it is there, or after nothing has contradicted it for a while."""
        if woken and self._asked is None:
            self._asked = monotonic()
        if self._asked is None:
            return
        if not self._client_matters() or self.client.probe() or monotonic() >= self._asked + _PROBING:
            self._asked = None
            self.client.stop_probing()
            with contextlib.suppress(StoreUnavailable):  # then the inquirer assumes that the client is there
                await self.transfers.vouch(self.transfer)

    async def _send(self, listener: Listener) -> Outcome:
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
        return not self._whole  # once the whole body is here, the transfer can complete without the uploader

    def _client_progress(self) -> int:
        return self._buffer.total

    async def _receive(self) -> Outcome | None:
        """Body → buffer, as fast as the buffer empties."""
        self._owes_since = monotonic()
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
            self._owes_since = monotonic()
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
            self._owes_since = None if self._buffer.full else monotonic()
            self._arrived.set()
            if self._buffer.total == self._length or self.client.is_lost:
                over.set()

        with self.client.pouring(self._buffer, left, arrived) as can_pour:
            if can_pour:
                self._owes_since = None if self._buffer.full else monotonic()
                await over.wait()
        return can_pour

    async def _until_taken(self) -> None:
        """Waits until the buffer has room."""
        while self._buffer.full:
            self._taken.clear()
            await self._taken.wait()

    async def _write(self, stream: Stream) -> Outcome:
        """Copy from the buffer to the stream, within the window; then write the end, and wait until it is confirmed."""
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
        """Take the chunks to write next: as many of those in the buffer as the window has room for."""
        chunks: list[Bytes] = []
        self._window.size = self.context.window()
        self._buffer.enough = min(BATCH * self.context.settings.chunk, self._window.size)
        while (
            (self._buffer.has_pieces or (self._buffer and not chunks)) and len(chunks) < BATCH and self._window.is_open
        ):
            chunks.append(self._buffer.take())
            self._window.write(len(chunks[-1]))
        self.context.node.load.received += sum(map(len, chunks))
        self._taken.set()
        if self._owes_since is None and not self._whole and not self._buffer.full:
            self._owes_since = monotonic()
            self.client.pour_on()
        return chunks

    async def _acknowledged(self, stream: Stream) -> Outcome | None:
        """Wait a while for the downloader's progress. Return how the transfer ended, if it has."""
        ack = await stream.acks(after=self._ack_id, timeout=BLOCK)
        return await self._acked(ack) if ack is not None else None

    async def _acked(self, ack: Ack | None) -> Outcome | None:
        """Record an acknowledgement; None means that the stream is gone. Return how the transfer ended, if it has."""
        if ack is None:
            return (await self._touch()).outcome or Outcome.STORE_LOST
        self._ack_id = ack.id
        self._window.acknowledge(ack.position)
        return ack.outcome
