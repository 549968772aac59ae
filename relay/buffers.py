"""Offsets, window and buffer arithmetic.  Pure: no clock, no I/O, no Redis.

A stream entry's ID is `END-0`, END being the byte offset just after the chunk.  Redis refuses an ID that is
not above the last one, so a retried write cannot double bytes; an entry whose `END - len(data)` is not the
reader's position is a gap.  The last entry of a stream carries the field `end` and the next sequence number
after the last entry, so `TOTAL-1` for a whole upload.
"""

from collections import deque

Bytes = bytes | memoryview
#: Chunks of one write or read at most: what a side has in memory, and what one round trip to Redis brings.
BATCH = 4
#: Bytes of one stream entry at most.  An entry of exactly 262,144 bytes takes 25 % more of Redis's memory
#: than one that leaves room for the entry's header (measured with MEMORY USAGE on Redis 7.0).
CHUNK = 256 * 1024 - 512
#: Bytes that are copied rather than to keep for them the block that they were received into; and bytes of room in a
#: block which are too few for another read.
_SMALL, _ROOM_LEAST = 16 * 1024, 64 * 1024
_NONE = memoryview(b"")
#: Bytes of blocks that are kept to be used again.
_KEPT = 8 * 1024 * 1024


class Blocks:
    """Memory to receive into, `size` bytes each, used again when nobody has a slice of it any more.

    A fresh one would be filled with zeros first: an eighth of what a node did for a fast stream.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._kept: list[bytearray] = []

    def get(self) -> memoryview:
        """One that nobody uses; it is used until the view and its slices are gone."""
        for block in self._kept:
            try:
                block.append(block.pop())
            except BufferError:  # Python does not let it be resized while there is a view of it
                continue
            return memoryview(block)
        block = bytearray(self._size)
        if (len(self._kept) + 1) * self._size <= _KEPT:
            self._kept.append(block)
        return memoryview(block)


class Buffer:
    """Bytes that have arrived and not been written yet, first in, first out, without copying what is large.

    They are added in pieces, or received into `room`, of which `fill` then has to be told.  `full` says when the
    producer should pause: when there is enough for the next write.
    """

    def __init__(self, chunk: int = CHUNK, blocks: "Blocks | None" = None) -> None:
        #: Bytes that have ever arrived.
        self.total = 0
        #: Bytes that are enough for the next write.
        self.enough = BATCH * chunk
        self._chunk = chunk
        self._blocks = blocks or Blocks(chunk)
        self._pieces: deque[Bytes] = deque()
        self._size = 0
        #: What is received into, and from where to where that is filled with what is not among the pieces yet.
        self._block = _NONE
        self._start = self._end = 0

    def __len__(self) -> int:
        return self._size

    @property
    def full(self) -> bool:
        return self._size >= self.enough

    @property
    def has_pieces(self) -> bool:
        """Whether there is more than what has been received into a block that still has room."""
        return bool(self._pieces)

    def add(self, piece: bytes) -> None:
        if piece:
            self._cut()
            self._pieces.append(piece)
            self._grow(len(piece))

    def room(self, most: int) -> memoryview:
        """Where to receive the next bytes, of which there may be `most`; at least one fits."""
        if not self._block:
            self._block = self._blocks.get()
        return self._block[self._end : self._end + most]

    def fill(self, size: int) -> None:
        """Takes note that so many bytes were received into the room."""
        self._end += size
        self._grow(size)
        if self._end == len(self._block):
            self._cut()

    def take(self) -> Bytes:
        """The next bytes, at most one chunk; what came in one piece leaves in one piece, uncopied."""
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
        """Makes a piece of what has been received into the block."""
        if self._end > self._start:
            piece = self._block[self._start : self._end]
            if self._end <= _SMALL:
                self._pieces.append(bytes(piece))
                self._block = _NONE
            else:
                self._pieces.append(piece)
            self._start = self._end
        if len(self._block) - self._end < _ROOM_LEAST:
            self._block = _NONE
        if not self._block:
            self._start = self._end = 0
