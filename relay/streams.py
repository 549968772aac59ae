"""The stream of a transfer: what lies between its two sides.

Over Redis it is `store.RedisStream`.  Where both clients are on one node it is a `LocalStream`, and the bytes do
not leave the process; all else about the transfer is in Redis as ever, so that nodes and operators can see and
end it, and how it ends is decided there.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from relay.flow import chunk_id, offset_of
from relay.states import Outcome


@dataclass(frozen=True, slots=True)
class Entry:
    """One stream entry: a chunk ending at byte offset `end`, or, with `outcome`, the end of the stream."""

    end: int
    data: bytes | memoryview = b""
    outcome: Outcome | None = None


@dataclass(frozen=True, slots=True)
class Ack:
    """How far the downloader is, in bytes, and how it ended, if it has.  `id` is the entry's, to wait beyond."""

    id: str
    position: int
    outcome: Outcome | None = None


class Stream(Protocol):
    """Chunks in one direction, acknowledgements in the other.  Each method raises StoreUnavailable."""

    #: The ID of the last entry that Redis is known to have of it.
    written: str

    async def append(self, chunks: Sequence[bytes | memoryview], *, end: int) -> Ack | None:
        """Writes chunks, the last of which ends at byte offset `end`, and looks at the downloader's progress.

        None: the stream is gone, so the transfer is over.
        """

    async def finish(self, *, total: int) -> Ack | None:
        """Writes the last entry of a whole upload of `total` bytes.  None: the stream is gone."""

    async def acks(self, *, after: str, timeout: float) -> Ack | None:
        """Waits up to `timeout` seconds for progress beyond the entry with ID `after`, or for the end."""

    async def read(self, *, position: int, acknowledge: bool, count: int, timeout: float) -> list[Entry]:
        """Waits up to `timeout` seconds for up to `count` entries after byte offset `position`.

        `acknowledge` first tells the uploader's side that everything up to `position` was handed over.
        """


class LocalStream:
    """Between two clients of one node.  Its end it leaves to Redis: whoever ends a transfer wakes both sides."""

    def __init__(self) -> None:
        self.written = chunk_id(0)
        self._entries: deque[Entry] = deque()
        self._position = 0
        self._arrived = asyncio.Event()
        self._acknowledged = asyncio.Event()

    async def append(self, chunks: Sequence[bytes | memoryview], *, end: int) -> Ack:
        start = end - sum(map(len, chunks))
        for chunk in chunks:
            start += len(chunk)
            self._entries.append(Entry(start, chunk))
        self._arrived.set()
        return self._ack()

    async def finish(self, *, total: int) -> Ack:
        self._entries.append(Entry(total, outcome=Outcome.COMPLETE))
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
