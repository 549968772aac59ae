"""TODO."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Sequence

from relay.buffers import Bytes
from relay.states import Outcome
from relay.store.offsets import chunk_id, ends, offset_of
from relay.store.streams import Ack, Entry


class LocalStream:
    """Between two clients of one node.  Its end it leaves to Redis: whoever ends a transfer wakes both sides."""

    def __init__(self) -> None:
        self.written = chunk_id(0)
        self._entries: deque[Entry] = deque()
        self._position = 0
        self._arrived = asyncio.Event()
        self._acknowledged = asyncio.Event()

    async def append(self, chunks: Sequence[Bytes], *, end: int, whole: bool = False) -> Ack:
        self._entries.extend(map(Entry, ends(chunks, end=end), chunks))
        if whole:
            self._entries.append(Entry(end, outcome=Outcome.COMPLETE))
        self._arrived.set()
        return self._ack()

    async def acks(self, *, after: str, timeout: float) -> Ack | None:
        if self._position <= offset_of(after.encode()) and not await _wait(self._acknowledged, timeout):
            return None
        return self._ack()

    async def read(self, *, position: int, acknowledge: bool, count: int, timeout: float) -> list[Entry]:
        if acknowledge:
            self._position = position
            self._acknowledged.set()
        if not self._entries:
            await _wait(self._arrived, timeout)
        return [self._entries.popleft() for _ in range(min(count, len(self._entries)))]

    def _ack(self) -> Ack:
        return Ack(chunk_id(self._position), self._position)


async def _wait(event: asyncio.Event, timeout: float) -> bool:
    """Waits for the next time that it is set; False where it is not within `timeout` seconds."""
    event.clear()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout):
            return await event.wait()
    return False
