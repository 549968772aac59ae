"""A buffer for the bytes of an upload between its client and Redis. Pure: no clock, no I/O, no Redis."""

from collections import deque

Bytes = bytes | memoryview
#: Maximum number of chunks that one round trip to Redis writes or reads, and that one side of a transfer has in memory.
BATCH = 4
#: Maximum size of a stream entry, in bytes. An entry of exactly 262,144 bytes takes 25 % more of Redis's memory than
#: one that leaves room for the entry's header (measured with MEMORY USAGE on Redis 7.0).
CHUNK = 256 * 1024 - 512
#: Maximum bytes that are copied out of a block, rather than keeping the block alive for them.
_SMALL = 16 * 1024
#: Minimum bytes of room that a block must have for another read.
_ROOM_MINIMUM = 64 * 1024
_NONE = memoryview(b"")
#: Maximum size of all blocks that are kept for reuse, in bytes, in use or not: while there is much to do, about what
#: 200 streams have under way; and afterwards for each user, but at least what three fast uploads keep.
_KEPT_BUSY, _KEPT_EACH, _KEPT = 256 * 1024 * 1024, 1024 * 1024, 32 * 1024 * 1024
#: Maximum number of blocks that one search looks at: those that it has not looked at for longest.
_LOOKS = 3


class Blocks:
    """Blocks of memory to receive into, `size` bytes each. A block is reused once nobody has a slice of it any more.

    A new one would be filled with zeros first, which was an eighth of a node's work for a fast stream. The block that
    was found unused last is reused first, because it is the likeliest to be in the processor's cache.

    Call `trim` whenever one of those who use the blocks needs them no more.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        #: The blocks that were in use when they were looked at, those first that were looked at first; and the others.
        self._lent: deque[bytearray] = deque()
        self._unused: list[bytearray] = []

    def get(self) -> memoryview:
        """Return a block that nobody uses. It is in use until the view and all its slices are gone."""
        for _ in range(min(_LOOKS, len(self._lent))):
            block = self._lent.popleft()
            (self._lent if _is_in_use(block) else self._unused).append(block)
        block = self._unused.pop() if self._unused else bytearray(self._size)
        if (len(self._lent) + len(self._unused) + 1) * self._size <= _KEPT_BUSY:
            self._lent.append(block)
        return memoryview(block)

    def trim(self, *, users: int) -> None:
        """Keep only what so many `users` need. Blocks that are in use stay valid, but are not kept afterwards."""
        most = max(_KEPT, users * _KEPT_EACH)
        while (len(self._lent) + len(self._unused)) * self._size > most:
            (self._unused or self._lent).pop()


def _is_in_use(block: bytearray) -> bool:
    try:
        block.append(block.pop())
    except BufferError:  # Python does not let it be resized while there is a view of it
        return True
    return False


class Buffer:
    """Bytes that have arrived and have not been written yet, first in, first out. Large pieces are not copied.

    Bytes are added in pieces, or received into `room`; call `fill` after that. The producer should pause while the
    buffer is `full`, that is, while it holds enough for the next write.
    """

    def __init__(self, chunk: int = CHUNK, blocks: Blocks | None = None) -> None:
        #: Bytes that have arrived so far, taken or not.
        self.total = 0
        #: Bytes that are enough for the next write, so that the buffer counts as full.
        self.enough = BATCH * chunk
        self._chunk = chunk
        self._blocks = blocks or Blocks(chunk)
        self._pieces: deque[Bytes] = deque()
        self._size = 0
        #: The block that is being received into, and the part of it that is filled and not among the pieces yet.
        self._block = _NONE
        self._start = self._end = 0

    def __len__(self) -> int:
        return self._size

    @property
    def full(self) -> bool:
        return self._size >= self.enough

    @property
    def has_pieces(self) -> bool:
        """Whether there is more than what is in a block that still has room."""
        return bool(self._pieces)

    def add(self, piece: bytes) -> None:
        if piece:
            self._cut()
            self._pieces.append(piece)
            self._grow(len(piece))

    def room(self, most: int) -> memoryview:
        """Return memory to receive the next bytes into: at most `most`, at least one."""
        if not self._block:
            self._block = self._blocks.get()
        return self._block[self._end : self._end + most]

    def fill(self, size: int) -> None:
        """Record that `size` bytes were received into the room."""
        self._end += size
        self._grow(size)
        if self._end == len(self._block):
            self._cut()

    def take(self) -> Bytes:
        """Return the next bytes, at most one chunk. What came in one piece leaves in one piece, and is not copied."""
        if not self._pieces:
            self._cut()
        taken: list[Bytes] = []
        room = self._chunk
        while self._pieces and room:
            piece = self._pieces.popleft()
            if len(piece) > room:
                if taken:
                    self._pieces.appendleft(piece)
                    break
                view = memoryview(piece)
                self._pieces.appendleft(view[room:])
                piece = view[:room]
            taken.append(piece)
            room -= len(piece)
        data = taken[0] if len(taken) == 1 else b"".join(taken)
        self._size -= len(data)
        return data

    def _grow(self, size: int) -> None:
        self._size += size
        self.total += size

    def _cut(self) -> None:
        """Make a piece of what has been received into the block."""
        if self._end > self._start:
            piece = self._block[self._start : self._end]
            if self._end <= _SMALL:
                self._pieces.append(bytes(piece))
                self._block = _NONE
            else:
                self._pieces.append(piece)
            self._start = self._end
        if len(self._block) - self._end < _ROOM_MINIMUM:
            self._block = _NONE
        if not self._block:
            self._start = self._end = 0
