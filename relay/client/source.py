"""What is sent: a file, which can be read again from any byte on, or a pipe, of which the latest bytes are kept."""

import mimetypes
import os
import stat
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

from relay.client.failures import Exit, Failure

#: Bytes that are read at once: httpcore is slow with much larger and with much smaller pieces.
PIECE = 256 * 1024
#: Maximum bytes of a pipe that are kept: more than a node's window and the kernels' buffers between hold.
REPLAY = 32 * 1024 * 1024


class Source(Protocol):
    """A file to be sent. `length` is in bytes; None if it is unknown."""

    name: str
    length: int | None
    media_type: str
    #: Tells the bytes from others, for another process that is to send the rest; empty if none can.
    fingerprint: str

    def pieces(self, offset: int) -> Iterator[bytes]:
        """Yield the bytes from a byte offset on. Raise Failure if they are not what they were, or gone."""

    def check(self) -> None:
        """Raise Failure if the bytes are not those any more that the upload began with."""


class FileSource:
    """A regular file. It must not change while it is sent: its beginning may be with the receiver already."""

    def __init__(self, path: Path, name: str = "") -> None:
        self._path = path
        try:
            found = path.stat()
            if not stat.S_ISREG(found.st_mode):  # to open a pipe would wait for its writer
                raise Failure(Exit.LOCAL, f"{path} is no regular file: send a pipe with `relay send - --name NAME`")
            if not has_known_size(path, found):
                raise Failure(
                    Exit.LOCAL, f"{path} does not tell its size: send it with `relay send - --name NAME < {path}`"
                )
        except OSError as error:
            raise Failure(Exit.LOCAL, f"cannot read {path}: {error.strerror}") from None
        self._stamp = _stamp(found)
        self.name = name or path.resolve().name
        self.length: int | None = found.st_size
        self.fingerprint = str(self._stamp)
        self.media_type = mimetypes.guess_type(self.name)[0] or "application/octet-stream"

    def pieces(self, offset: int) -> Iterator[bytes]:
        left = (self.length or 0) - offset
        try:
            with self._path.open("rb", buffering=0) as file:
                self._compare(os.fstat(file.fileno()))
                file.seek(offset)
                while left > 0 and (piece := file.read(min(PIECE, left))):
                    left -= len(piece)
                    if not left:
                        self._compare(os.fstat(file.fileno()))  # the receiver must not take a mixture for the file
                    yield piece
        except OSError as error:
            raise Failure(Exit.LOCAL, f"cannot read {self._path}: {error.strerror}") from None
        if left > 0:
            raise self._changed()

    def check(self) -> None:
        try:
            self._compare(self._path.stat())
        except OSError as error:
            raise Failure(Exit.LOCAL, f"cannot read {self._path}: {error.strerror}") from None

    def _compare(self, found: os.stat_result) -> None:
        if _stamp(found) != self._stamp:
            raise self._changed()

    def _changed(self) -> Failure:
        return Failure(Exit.LOCAL, f"{self._path} was changed while it was sent: send it again when it is at rest")


def has_known_size(path: Path, found: os.stat_result) -> bool:
    """Return whether a regular file has as many bytes as it says: those in /proc say 0. Raise OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # some in /proc wait for what they have to tell
    try:
        return found.st_size > 0 or not os.read(fd, 1)
    finally:
        os.close(fd)


def _stamp(found: os.stat_result) -> tuple[int, int, int, int]:
    return found.st_size, found.st_mtime_ns, found.st_dev, found.st_ino


class PipeSource:
    """A pipe, such as stdin. Its latest bytes are kept, because a new connection has to begin where the receiver is."""

    def __init__(self, file: BinaryIO, name: str, *, replay: int = REPLAY) -> None:
        self._file = file
        self.name = name
        self.length: int | None = None
        self.media_type = "application/octet-stream"
        self.fingerprint = ""
        self._kept: deque[bytes] = deque()
        #: The byte offsets of the first byte that is kept, and of the next one to be read.
        self._first = self._end = 0
        self._replay = replay

    def pieces(self, offset: int) -> Iterator[bytes]:
        if offset < self._first:
            raise Failure(
                Exit.LEFT,
                f"the receiver needs bytes of stdin that are gone (only the last {self._replay >> 20} MiB are kept): "
                "start the whole pipeline again",
            )
        at = self._first
        for piece in list(self._kept):
            if at + len(piece) > offset:
                yield piece[max(0, offset - at) :]
            at += len(piece)
        # A reader that waits for a full buffer would hold back what a trickling pipe has written.
        while piece := os.read(self._file.fileno(), PIECE):
            at = self._end
            self._keep(piece)
            if self._end > offset:
                yield piece[max(0, offset - at) :]
        if self._end < offset:
            raise Failure(
                Exit.LEFT,
                f"the receiver has {offset} bytes of another file, and stdin had {self._end}: start both again",
            )

    def check(self) -> None:
        """A pipe cannot change."""

    def _keep(self, piece: bytes) -> None:
        self._kept.append(piece)
        self._end += len(piece)
        while self._end - self._first - len(self._kept[0]) >= self._replay:
            self._first += len(self._kept.popleft())
