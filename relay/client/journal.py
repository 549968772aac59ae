"""What was unpacked of a tar stream before the command was stopped, so that the stream can be made again up to there.

The journal has one line for each member, written before the member is: its name, the bytes that it has in the stream,
and the header that stood before them. So all members but the last one are complete. The headers and the files together
are the stream that has come, byte for byte: it is unpacked and hashed once more, but not transferred again.
"""

import base64
import contextlib
import fcntl
import json
import os
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Self

from relay.client.archive import padded
from relay.client.failures import Exit, Failure
from relay.client.source import PIECE


class Entry(NamedTuple):
    """One member: its name, the bytes that follow its header in the stream, and the header as it came."""

    name: str
    size: int
    header: bytes

    @property
    def line(self) -> bytes:
        return (
            json.dumps([self.name, self.size, base64.b64encode(zlib.compress(self.header, 1)).decode()]).encode()
            + b"\n"
        )

    @classmethod
    def parse(cls, line: bytes) -> Self:
        """Return the entry of a line. Raise ValueError if it was not written to its end."""
        name, size, header = json.loads(line)
        if not line.endswith(b"\n"):
            raise ValueError
        return cls(name, size, zlib.decompress(base64.b64decode(header)))


class Journal:
    """The journal of a hidden folder, and the tree that is unpacked beside it. Close it. Raise OSError, Failure."""

    def __init__(self, folder: Path) -> None:
        self.tree = folder / "tree"
        #: What has come of the last member's bytes, and how many these are. They are on the disk twice for a while.
        self._rest, self.kept = folder / "rest", 0
        self._path = folder / "journal"
        self.tree.mkdir(exist_ok=True)
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        #: How many members are complete, and how many are listed.
        self.complete = self.listed = 0
        #: How many bytes of the stream can be made again.
        self.size = 0
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._look()
        except BlockingIOError:
            self.close()
            raise Failure(Exit.LOCAL, "another `relay receive` is writing this directory: wait until it ends") from None
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        os.close(self._fd)

    def add(self, entry: Entry) -> None:
        """List a member that is about to be written."""
        if self.kept:  # of the member before
            self._rest.unlink(missing_ok=True)
            self.kept = 0
        line = memoryview(entry.line)
        while line:
            line = line[os.write(self._fd, line) :]

    def read(self) -> Iterator[bytes]:
        """Yield the first `size` bytes of the stream. Raise Failure if they are not what they were."""
        for number, entry in enumerate(self._entries()):
            yield entry.header
            if number < self.complete:
                yield from self._bytes(self.tree / entry.name, entry.size)
                yield bytes(padded(entry.size) - entry.size)
            else:
                yield from self._bytes(self._rest, self.kept)

    def _bytes(self, path: Path, size: int) -> Iterator[bytes]:
        """Yield the bytes of a file, of which there must be so many. Raise Failure."""
        if size:
            with path.open("rb", buffering=0) as file:
                while size > 0 and (piece := file.read(min(PIECE, size))):
                    size -= len(piece)
                    yield piece
        if size:
            raise self._changed()

    def _changed(self) -> Failure:
        return Failure(Exit.LOCAL, f"{self.tree} was changed: delete {self.tree.parent}, and start again")

    def _entries(self) -> Iterator[Entry]:
        """Yield the entries, but for a line that was not written to its end."""
        with self._path.open("rb") as file, contextlib.suppress(ValueError, zlib.error):
            for line in file:
                yield Entry.parse(line)

    def _look(self) -> None:
        """Find out how far an earlier run has come, and prepare for the last member to be written once more."""
        last: Entry | None = None
        written = 0
        for entry in self._entries():
            if last is not None:
                if not self._has(last):  # as after a crash of the machine: then the rest may not be true, either
                    self._start_again()
                    return
                self.complete += 1
                self.size += len(last.header) + padded(last.size)
            last = entry
            written += len(entry.line)
        os.ftruncate(self._fd, written)
        if last is not None:
            self.listed = self.complete + 1
            self._set_aside(last)
            self.size += len(last.header) + self.kept

    def _start_again(self) -> None:
        shutil.rmtree(self.tree)
        self.tree.mkdir()
        os.ftruncate(self._fd, 0)
        self.complete = self.size = 0

    def _has(self, entry: Entry) -> bool:
        """Return whether a member is there, with all its bytes."""
        path = self.tree / entry.name
        return os.path.lexists(path) and (not entry.size or path.stat().st_size == entry.size)

    def _set_aside(self, last: Entry) -> None:
        """Move away what there is of the last member, which is made once more."""
        path = self.tree / last.name
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        elif path.is_symlink() or not last.size:
            path.unlink(missing_ok=True)
        elif path.exists():
            path.replace(self._rest)
        self.kept = self._rest.stat().st_size if last.size and self._rest.exists() else 0
        if self.kept > last.size:
            raise self._changed()
