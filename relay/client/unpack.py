"""Unpacks a tar stream from a stranger as it arrives, into a new directory that gets its name when all is there.

tarfile's `data` filter keeps everything inside, and drops owners and set-user-id bits. Beyond that only regular files,
directories and symlinks are taken, all in one folder, and nothing is written twice.
"""

import itertools
import os
import shutil
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from relay.client.archive import END, padded
from relay.client.failures import Exit, Failure
from relay.client.journal import Entry, Journal
from relay.client.part import part_path, trouble

#: Permissions that a file or directory may have, which are those that the `data` filter leaves. A directory's owner has
#: at least the latter.
_MODES, _OWNER = 0o755, 0o700
#: Bytes that can be looked back at: more than the longest header, with all that stands before the bytes of its file.
_RECENT = 128 * 1024


class Pieces:
    """Reads a stream of pieces as a file, and keeps the latest bytes for a look back."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._left = b""
        self._recent = bytearray()
        #: How many bytes were read.
        self._at = 0

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes, and none only at the end."""
        while not self._left:
            piece = next(self._pieces, None)
            if piece is None:
                return b""
            self._left = piece
        data, self._left = self._left[:size], self._left[size:]
        self._at += len(data)
        self._recent += data
        if len(self._recent) > 2 * _RECENT:
            del self._recent[:-_RECENT]
        return data

    def between(self, start: int, end: int) -> bytes:
        """Return the bytes from one offset to another. Raise tarfile.TarError if they were read too long ago."""
        first = self._at - len(self._recent)
        if start < first:
            raise tarfile.TarError("it has a header that is too long")
        return bytes(self._recent[start - first : end - first])


def check_folder(target: Path) -> None:
    """Raise Failure if no directory can be made under this name."""
    if not target.parent.is_dir():
        raise Failure(Exit.LOCAL, f"there is no directory {target.parent}: make it, or choose another with -o")
    if os.path.lexists(target):
        raise Failure(
            Exit.LOCAL, f"{target} exists already: choose another name with -o, or save the tar with --archive"
        )


class Tree:
    """A directory that is being unpacked beside its final name. It is a context manager.

    What was unpacked remains, for a later run to go on with.
    """

    def __init__(self, target: Path, etag: str) -> None:
        self._target = target
        self._folder = part_path(target, etag)
        try:
            self._folder.mkdir(mode=_OWNER, exist_ok=True)
            found = self._folder.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
                raise Failure(Exit.LOCAL, f"{self._folder} is not a directory of yours: remove it")
            self._journal = Journal(self._folder)
        except OSError as error:
            raise trouble(self._target, error) from None

    def __enter__(self) -> "Tree":
        return self

    def __exit__(self, *exception: object) -> None:
        self._journal.close()

    @property
    def size(self) -> int:
        """The bytes of the stream that are here already."""
        return self._journal.size

    def needs(self, length: int) -> int:
        """Return the bytes that a stream of this length still takes on the disk."""
        return length - self._journal.size + self._journal.kept

    def read(self) -> Iterator[bytes]:
        """Yield those bytes. Raise Failure."""
        return self._journal.read()

    def end(self, length: int) -> bytes:
        """Return what ends a stream of this length, if nothing else of it is missing: zeros; else nothing."""
        missing = length - self._journal.size
        return bytes(missing) if 0 < missing < padded(1) + len(END) else b""

    def unpack(self, pieces: Iterator[bytes]) -> int:
        """Unpack all of the stream, and give the directory its name. Return the number of files. Raise Failure."""
        try:
            count = _unpack_into(self._journal, pieces)
            os.sync()
            (top,) = self._journal.tree.iterdir()
            check_folder(self._target)
            top.rename(self._target)
        except tarfile.TarError as error:
            self.discard()
            raise Failure(Exit.CORRUPTED, f"the archive is refused: {_said(error)}; save it with --archive") from None
        except OSError as error:
            raise trouble(self._target, error) from None
        self.discard()
        return count

    def discard(self) -> None:
        """Delete what there is beside the final name. Never fail."""
        shutil.rmtree(self._folder, ignore_errors=True)


def _unpack_into(journal: Journal, pieces: Iterator[bytes]) -> int:
    """Unpack what the journal does not have yet. Raise tarfile.TarError, OSError."""
    count, directories, tops, folder = 0, list[tarfile.TarInfo](), set[str](), journal.tree
    stream, end = Pieces(pieces), 0
    with tarfile.open(fileobj=cast(BinaryIO, stream), mode="r|", encoding="utf-8", errors="surrogateescape") as tar:
        for number in itertools.count():
            if (member := tar.next()) is None:
                break
            tops.add(member.name.partition("/")[0])
            is_there = number < journal.complete
            _check(member, folder, tops, is_there=is_there)
            size = member.size if member.isreg() else 0
            if number >= journal.listed:
                journal.add(Entry(member.name, size, stream.between(end, member.offset_data)))
            end = member.offset_data + padded(size)
            if not is_there:
                _extract(tar, member, folder)
            if member.isdir():
                directories.append(member)
            else:
                count += 1
            tar.members.clear()  # type: ignore[attr-defined]  # otherwise all headers would stay in memory
    for _ in pieces:  # what is behind the end of the archive
        pass
    if not tops:
        raise tarfile.TarError("it is empty")
    for directory in reversed(directories):
        path = folder / directory.name
        path.chmod((directory.mode & _MODES) | _OWNER)
        os.utime(path, (directory.mtime, directory.mtime))
    return count


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    """Write one member. Raise tarfile.TarError, OSError."""
    if member.isdir():
        # Its own mode and time come last: files are still to be written into it.
        made = member.replace(mode=_OWNER, deep=False)
        tar.extract(made, folder, set_attrs=False, filter="data")
        return
    tar.extract(member, folder, filter="data")
    if member.issym():  # tarfile leaves the time of a link as it is
        os.utime(folder / member.name, (member.mtime, member.mtime), follow_symlinks=False)
    else:
        # The filter makes all files writable for their owner. But whoever protected one meant it.
        (folder / member.name).chmod(member.mode & _MODES)


def _check(member: tarfile.TarInfo, folder: Path, tops: set[str], *, is_there: bool) -> None:
    """Raise tarfile.TarError if a member is not what `relay send` puts into a stream.

    If it `is_there`, an earlier run has written it.
    """
    parts = member.name.split("/")
    if len(tops) > 1 or {"", ".", ".."} & set(parts):
        raise tarfile.TarError("it is not one folder")
    if len(parts) == 1 and not member.isdir():
        raise tarfile.TarError("it is not one folder")
    if not (member.isreg() or member.isdir() or member.issym()):
        raise tarfile.TarError("it has something other than files, directories and symbolic links")
    if not is_there and os.path.lexists(folder / member.name):
        raise tarfile.TarError("it has a name twice")


def _said(error: tarfile.TarError) -> str:
    """Return in some words why an archive is refused, without the names in it."""
    if isinstance(error, tarfile.FilterError):
        return "it has something that would be outside of its folder"
    return str(error) if type(error) is tarfile.TarError else "it is damaged"
