"""The stream of a transfer whose two clients are on one node: the bytes do not leave the process."""

from collections import deque
from collections.abc import Awaitable, Sequence
from weakref import WeakValueDictionary

from relay.buffers import Bytes
from relay.states import Outcome
from relay.store.offsets import chunk_id, offset_of, offsets_after
from relay.store.streams import Ack, Entry
from relay.tasks import Signal


class LocalStream:
    """A `Stream` in memory. It leaves the end of the transfer to Redis: whoever ends a transfer wakes both sides."""

    def __init__(self) -> None:
        self.written = chunk_id(0)
        self._entries: deque[Entry] = deque()
        self._position = 0
        self._arrived = Signal()
        self._acknowledged = Signal()

    async def append(self, chunks: Sequence[Bytes], *, offset: int, whole: bool = False) -> Ack:
        self._entries.extend(map(Entry, offsets_after(chunks, last=offset), chunks))
        if whole:
            self._entries.append(Entry(offset, outcome=Outcome.COMPLETE))
        self._arrived.set()
        return self._ack()

    async def acks(self, *, after: str, timeout: float) -> Ack | None:
        if self._position <= offset_of(after.encode()) and not await _next(self._acknowledged, timeout):
            return None
        return self._ack()

    def wake_with_read(self, *, node: str, about: str) -> None:
        raise NotImplementedError  # both sides are on this node, whose inbox wakes its listeners at once

    async def read(self, *, position: int, acknowledge: bool, count: int, timeout: float) -> list[Entry]:
        if acknowledge:
            self._position = position
            self._acknowledged.set()
        if not self._entries:
            await _next(self._arrived, timeout)
        return [self._entries.popleft() for _ in range(min(count, len(self._entries)))]

    def _ack(self) -> Ack:
        return Ack(chunk_id(self._position), self._position)


class LocalStreams:
    """The local streams of a node by transfer id and leg. A stream is gone when neither side holds it any more."""

    def __init__(self) -> None:
        self._streams: WeakValueDictionary[tuple[str, int], LocalStream] = WeakValueDictionary()

    def get(self, transfer_id: str, leg: int) -> LocalStream:
        """Return the stream of a leg. The side that comes second gets the stream of the first."""
        if (stream := self._streams.get((transfer_id, leg))) is None:
            stream = self._streams[transfer_id, leg] = LocalStream()
        return stream


def _next(signal: Signal, timeout: float) -> Awaitable[bool]:
    """Wait until the signal is set the next time. Return False if that takes longer than `timeout` seconds."""
    signal.clear()
    return signal.wait(timeout)
