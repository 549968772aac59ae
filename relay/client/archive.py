"""Directories and several files as one tar stream, which is laid out beforehand and stored nowhere.

All sizes are known from the metadata. So the length of the stream is known before it begins, and its bytes from any
offset on can be made again from the files, which is what a new connection needs.
"""

import hashlib
import os
import stat
import tarfile
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from relay.client.failures import Exit, Failure
from relay.client.naming import shown
from relay.client.source import PIECE, has_known_size

#: The media type of such a stream: it is unpacked by `relay receive`, and a plain tar to everybody else.
MEDIA_TYPE = "application/x-tar; relay=tree"
ENDING = ".tar"
_BLOCK = tarfile.BLOCKSIZE
#: Two empty blocks end a tar.
END = bytes(2 * _BLOCK)
#: How many of the files that cannot be sent are named.
_NAMED = 3


class Entry(NamedTuple):
    """One file, directory or symlink: where it is, its header, and its file's stamp when the stream was laid out."""

    path: Path
    info: tarfile.TarInfo
    stamp: tuple[int, int, int, int]

    @property
    def header(self) -> bytes:
        return self.info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


class ArchiveSource:
    """A tar stream of `paths`, all of which are in one folder of it: the only directory itself, or one named `name`."""

    def __init__(self, paths: Iterable[Path], name: str = "") -> None:
        self._troubles: list[str] = []
        self._entries: list[Entry] = []
        self._starts: list[int] = []
        self._at = 0
        given = list(paths)
        only = given[0] if len(given) == 1 else None
        folder = name.removesuffix(ENDING) or (only and only.resolve().name) or "files"
        if only is not None:
            self._add(only, folder, only)
        else:
            self._add_folder(folder, given)
        if self._troubles:
            named = "; ".join(self._troubles[:_NAMED])
            more = f" and {len(self._troubles) - _NAMED} more" if len(self._troubles) > _NAMED else ""
            raise Failure(Exit.LOCAL, f"nothing was sent, because of {named}{more}")
        self.name = folder + ENDING
        self.length: int | None = self._at + len(END)
        self.media_type = MEDIA_TYPE
        layout = hashlib.sha256()
        for entry in self._entries:
            layout.update(entry.header + repr(entry.stamp).encode())
        self.fingerprint = layout.hexdigest()

    def pieces(self, offset: int) -> Iterator[bytes]:
        """Yield the stream from a byte offset on. Raise Failure if a file has changed since it was laid out."""
        return _gathered(self._from(offset))

    def check(self) -> None:
        """Each file is compared with what it was when it is read."""

    # -- the layout --------------------------------------------------------------------------------------------------

    def _add_folder(self, folder: str, paths: list[Path]) -> None:
        """Lay out a folder that does not exist, with the given files in it."""
        info = tarfile.TarInfo(folder)
        info.type, info.mode = tarfile.DIRTYPE, 0o755
        info.mtime = max((path.lstat().st_mtime for path in paths if os.path.lexists(path)), default=0)
        self._place(Entry(Path(), info, (0, 0, 0, 0)))
        names = [path.resolve().name for path in paths]
        for path, name in zip(paths, names, strict=True):
            if names.count(name) > 1:
                self._troubles.append(f"{shown(str(path))}: two have this name")
            else:
                self._add(path, f"{folder}/{name}", path)

    def _add(self, path: Path, name: str, root: Path) -> None:
        """Lay out a path, and what is beneath it, under a name. Links may lead to what is beneath `root`."""
        pending = [(path, name)]
        while pending:
            at, called = pending.pop()
            try:
                found = at.stat() if at == root else at.lstat()
                pending += self._one(at, called, found, root)
            except OSError as error:
                self._troubles.append(f"{shown(str(at))}: {error.strerror}")

    def _one(self, path: Path, name: str, found: os.stat_result, root: Path) -> list[tuple[Path, str]]:
        """Lay out one path. Return what is directly beneath it, the last one first."""
        info = tarfile.TarInfo(name)
        info.mode, info.mtime = stat.S_IMODE(found.st_mode) & 0o777, found.st_mtime
        beneath: list[tuple[Path, str]] = []
        if stat.S_ISDIR(found.st_mode):
            info.type = tarfile.DIRTYPE
            beneath = [(each, f"{name}/{each.name}") for each in sorted(path.iterdir(), reverse=True)]
        elif stat.S_ISLNK(found.st_mode):
            info.type, info.linkname = tarfile.SYMTYPE, str(path.readlink())
            if not _stays_within(path, info.linkname, root):
                self._troubles.append(f"{shown(str(path))}: a link that leads out of {shown(str(root))}")
        elif stat.S_ISREG(found.st_mode):
            info.size = found.st_size
            if not os.access(path, os.R_OK):
                self._troubles.append(f"{shown(str(path))}: Permission denied")
            elif not found.st_size and not has_known_size(path, found):
                self._troubles.append(f"{shown(str(path))}: it does not tell its size")
        else:
            self._troubles.append(f"{shown(str(path))}: no file, directory or link")
        self._place(Entry(path, info, _stamp(found)))
        return beneath

    def _place(self, entry: Entry) -> None:
        self._entries.append(entry)
        self._starts.append(self._at)
        self._at += len(entry.header) + padded(entry.info.size)

    # -- the bytes ---------------------------------------------------------------------------------------------------

    def _from(self, offset: int) -> Iterator[bytes]:
        first = max(0, bisect_right(self._starts, offset) - 1)
        for at in range(first, len(self._entries)):
            skip = max(0, offset - self._starts[at])
            entry = self._entries[at]
            header = entry.header
            yield header[skip:]
            if entry.info.size:
                yield from self._file(entry, min(max(0, skip - len(header)), padded(entry.info.size)))
        yield END[max(0, offset - self._at) :]

    def _file(self, entry: Entry, skip: int) -> Iterator[bytes]:
        """Yield a file's bytes from `skip` on, and what fills its last block."""
        size = entry.info.size
        left = max(0, size - skip)
        try:
            with open(entry.path, "rb", buffering=0) as file:  # noqa: PTH123  a Path of 100,000 files is slow enough
                if _stamp(os.fstat(file.fileno())) != entry.stamp:
                    raise _changed(entry.path)
                file.seek(skip)
                while left > 0 and (piece := file.read(min(PIECE, left))):
                    left -= len(piece)
                    if not left and _stamp(os.fstat(file.fileno())) != entry.stamp:
                        raise _changed(entry.path)
                    yield piece
        except OSError as error:
            raise Failure(Exit.LOCAL, f"cannot read {shown(str(entry.path))}: {error.strerror}") from None
        if left:
            raise _changed(entry.path)
        yield bytes(padded(size) - max(size, skip))


def _stays_within(path: Path, target: str, root: Path) -> bool:
    """Return whether a link leads to what is beneath the root: as it is written, and after the links on its way."""
    written = os.path.normpath(os.path.join(path.parent, target))  # noqa: PTH118  Path would not drop the `..`
    real = os.path.realpath(path)
    return (
        not os.path.isabs(target)  # noqa: PTH117
        and Path(written).is_relative_to(os.path.normpath(root))
        and Path(real).is_relative_to(os.path.realpath(root))
    )


def _stamp(found: os.stat_result) -> tuple[int, int, int, int]:
    return found.st_size, found.st_mtime_ns, found.st_dev, found.st_ino


def _changed(path: Path) -> Failure:
    return Failure(Exit.LOCAL, f"{shown(str(path))} was changed while it was sent: send again when it is at rest")


def padded(size: int) -> int:
    """Return the bytes that a file of this size takes in a tar."""
    return -(-size // _BLOCK) * _BLOCK


def _gathered(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the same bytes in pieces of a sensible size: a header each for many tiny files would be slow to send."""
    gathered = bytearray()
    for piece in pieces:
        if not gathered and len(piece) >= PIECE:
            yield piece
            continue
        gathered += piece
        if len(gathered) >= PIECE:
            yield bytes(gathered)
            gathered.clear()
    if gathered:
        yield bytes(gathered)
