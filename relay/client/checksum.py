"""The SHA-256 of a file, computed in a thread of its own while its bytes pass by."""

import hashlib
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

#: Bytes that the thread is given at a time. It has at most one such batch waiting, beside the one that it works on.
_BATCH = 1024 * 1024


class Checksum:
    """Takes in a file's bytes from the first one on. Those that pass again after a break count once.

    SHA-256 takes as long as the transfer does on a fast line, so that would become half as fast without the thread:
    hashlib lets other threads run meanwhile.
    """

    def __init__(self) -> None:
        #: How many bytes it has taken in.
        self.done = 0
        self._hash = hashlib.sha256()
        self._batch: list[memoryview] = []
        self._size = 0
        self._thread = ThreadPoolExecutor(1)
        self._work: Future[None] | None = None

    def add(self, offset: int, piece: bytes) -> None:
        """Take in a piece that begins at a byte offset. Raise ValueError if there is a gap before it."""
        known = self.done - offset
        if known < 0:
            raise ValueError(f"{-known} bytes are missing before byte {offset}")
        if known < len(piece):
            self._batch.append(memoryview(piece)[known:])
            self._size += len(piece) - known
            self.done = offset + len(piece)
        if self._size >= _BATCH:
            self._finish()
            self._work = self._thread.submit(self._update, self._batch)
            self._batch, self._size = [], 0

    @property
    def hex(self) -> str:
        """The SHA-256 of what it has taken in, in hexadecimal."""
        self._finish()
        self._update(self._batch)
        self._batch, self._size = [], 0
        return self._hash.hexdigest()

    def _finish(self) -> None:
        """Wait until the thread has done its work."""
        if self._work is not None:
            self._work.result()
            self._work = None

    def _update(self, pieces: Sequence[memoryview]) -> None:
        for piece in pieces:
            self._hash.update(piece)
