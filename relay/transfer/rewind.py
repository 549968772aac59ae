"""What an upload can send once more: the bytes that it wrote last. Pure.

A downloader that comes back has less than its node has handed over: megabytes may have been in the kernels, or in a
proxy. The uploader cannot send them again, so its node keeps them.
"""

from collections import deque

from relay.buffers import Bytes

#: How many uploads of a node may keep as much as one upload may.
_UPLOADS = 8
#: Bytes of memory that a piece takes beside its own: a view of the block that it was received into, and a place in the
#: queue. Otherwise an upload in pieces of one byte would take two hundred times its budget.
_OVERHEAD = 192


class RewindBudget:
    """The bytes that all uploads of a node keep together.

    One upload may keep `most` bytes beside those of its `window`, which its downloader has not acknowledged.
    """

    def __init__(self, most: int, *, window: int) -> None:
        self.most = most + window if most else 0
        self.left = most * _UPLOADS


class Rewind:
    """The bytes of one upload from byte offset `begin` of the file up to `end`."""

    __slots__ = ("_budget", "_pieces", "_taken", "begin", "end")

    def __init__(self, budget: RewindBudget, begin: int = 0) -> None:
        self.begin = self.end = begin
        self._budget = budget
        #: None until the first piece: thousands of uploads may wait, and a deque takes 760 bytes.
        self._pieces: deque[Bytes] | None = None
        #: The memory that the pieces take, in bytes.
        self._taken = 0

    def append(self, piece: Bytes) -> None:
        """Keep a piece that is about to be written. If there is no room for it, forget the oldest ones."""
        if self._pieces is None:
            self._pieces = deque()
        self._pieces.append(piece)
        self.end += len(piece)
        self._account(len(piece) + _OVERHEAD)
        while self._pieces and (self._taken > self._budget.most or self._budget.left < 0):
            self._forget(self._pieces.popleft())

    def since(self, offset: int) -> deque[Bytes]:
        """Return the pieces from byte offset `offset` on, which lies between `begin` and `end`."""
        at, pieces = self.begin, deque[Bytes]()
        for piece in self._pieces or ():
            if at + len(piece) > offset:
                pieces.append(memoryview(piece)[offset - at :] if at < offset else piece)
            at += len(piece)
        return pieces

    def clear(self) -> None:
        """Forget everything."""
        while self._pieces:
            self._forget(self._pieces.popleft())

    def _forget(self, piece: Bytes) -> None:
        self.begin += len(piece)
        self._account(-len(piece) - _OVERHEAD)

    def _account(self, memory: int) -> None:
        self._taken += memory
        self._budget.left -= memory
