"""The bytes of an upload in order, from any byte offset that it can still send: the file as a downloader wants it."""

from collections import deque

from relay.buffers import Bytes
from relay.server.intake import BodyIntake
from relay.transfer.rewind import Rewind, RewindBudget


class Supply:
    """The body of one request, which begins at byte offset `begin` of the file, and what was sent of it last.

    A downloader may come back with less than it was sent: then the last bytes are sent again. Or it has a part of the
    file from an earlier upload: then that part of the body is received and thrown away.
    """

    __slots__ = ("_again", "_intake", "_sent", "position", "rewound", "skipped")

    def __init__(self, intake: BodyIntake, budget: RewindBudget, *, begin: int = 0) -> None:
        #: The byte offset of the next byte to send.
        self.position = begin
        #: Bytes that were sent once more, and bytes that were thrown away.
        self.rewound = self.skipped = 0
        self._intake = intake
        self._sent = Rewind(budget, begin)
        #: What to send before the rest of the body. Thousands of uploads may wait, and a deque takes 760 bytes.
        self._again: deque[Bytes] | None = None

    @property
    def is_exhausted(self) -> bool:
        """Whether everything has been taken."""
        return self._intake.is_exhausted and not self._again

    @property
    def is_short(self) -> bool:
        """Whether the body has ended before the byte offset at which it should begin."""
        return self._intake.is_exhausted and self._sent.end < self.position

    def seek(self, position: int) -> bool:
        """Go on at a byte offset. Return False if the bytes after it cannot be sent any more."""
        if position < self._sent.begin:
            return False
        self.position, self._again = position, None
        if position < self._sent.end:
            self.rewound += self._sent.end - position
            self._again = self._sent.since(position)
        return True

    async def wait(self) -> None:
        """Wait until there is something to take, or the body is whole."""
        while not self._again:
            await self._intake.wait()
            if self._sent.end >= self.position or self._intake.is_exhausted:
                return
            self._skip(self._intake.take())

    def take(self, *, full_only: bool = False) -> Bytes:
        """Return the next piece; empty if there is none. See `BodyIntake.take`."""
        if self._again:
            piece = self._again.popleft()
        elif piece := self._intake.take(full_only=full_only):
            self._sent.append(piece)
        self.position += len(piece)
        return piece

    def close(self) -> None:
        """Forget what was sent."""
        self._sent.clear()

    def _skip(self, piece: Bytes) -> None:
        """Throw a piece of the body away, but for what is beyond the byte offset to go on at."""
        self._sent.append(piece)
        self.skipped += len(piece)
        if (beyond := self._sent.end - self.position) > 0:
            self._again = deque([memoryview(piece)[len(piece) - beyond :]])
            self.skipped -= beyond
