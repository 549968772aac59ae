"""Unpacks a tar stream from a stranger as it arrives, into a new directory that gets its name when all is there.

tarfile's `data` filter keeps everything inside, and drops owners and set-user-id bits. Beyond that only regular files,
directories and symlinks are taken, all in one folder, and nothing is written twice.
"""

import contextlib
import os
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from relay.client.failures import Exit, Failure
from relay.client.part import part_path

#: Permissions that a file or directory may have, which are those that the `data` filter leaves. A directory's owner has
#: at least the latter.
_MODES, _OWNER = 0o755, 0o700


class Pieces:
    """Reads a stream of pieces as a file."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._left = b""

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes, and none only at the end."""
        while not self._left:
            piece = next(self._pieces, None)
            if piece is None:
                return b""
            self._left = piece
        data, self._left = self._left[:size], self._left[size:]
        return data


def check_folder(target: Path) -> None:
    """Raise Failure if no directory can be made under this name."""
    if not target.parent.is_dir():
        raise Failure(Exit.LOCAL, f"there is no directory {target.parent}: make it, or choose another with -o")
    if os.path.lexists(target):
        raise Failure(
            Exit.LOCAL, f"{target} exists already: choose another name with -o, or save the tar with --archive"
        )


def unpack(pieces: Iterator[bytes], target: Path, etag: str) -> int:
    """Unpack all of a stream as the directory `target`. Return the number of files. Raise Failure."""
    folder = part_path(target, etag)
    try:
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(folder)  # of an earlier run that was killed
        folder.mkdir(mode=_OWNER)
        count = _unpack_into(folder, pieces)
        os.sync()
        (top,) = folder.iterdir()
        check_folder(target)
        top.rename(target)
    except tarfile.TarError as error:
        raise Failure(Exit.CORRUPTED, f"the archive is refused: {_said(error)}; save it with --archive") from None
    except OSError as error:
        raise Failure(Exit.LOCAL, f"cannot unpack into {target}: {error.strerror or error}") from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # there is no going on with half of a tree
    return count


def _unpack_into(folder: Path, pieces: Iterator[bytes]) -> int:
    """Unpack into an empty folder. Raise tarfile.TarError, OSError."""
    count, directories, tops = 0, list[tarfile.TarInfo](), set[str]()
    stream = cast(BinaryIO, Pieces(pieces))
    with tarfile.open(fileobj=stream, mode="r|", encoding="utf-8", errors="surrogateescape") as tar:
        while (member := tar.next()) is not None:
            tops.add(member.name.partition("/")[0])
            _check(member, folder, tops)
            if member.isdir():
                # Its own mode and time come last: files are still to be written into it.
                made = member.replace(mode=_OWNER, deep=False)
                tar.extract(made, folder, set_attrs=False, filter="data")
                directories.append(member)
            else:
                tar.extract(member, folder, filter="data")
                if member.issym():  # tarfile leaves the time of a link as it is
                    os.utime(folder / member.name, (member.mtime, member.mtime), follow_symlinks=False)
                else:
                    # The filter makes all files writable for their owner. But whoever protected one meant it.
                    (folder / member.name).chmod(member.mode & _MODES)
                count += 1
            tar.members.clear()  # type: ignore[attr-defined]  # otherwise all headers would stay in memory
    for _ in pieces:  # what is behind the end of the archive
        pass
    for directory in reversed(directories):
        path = folder / directory.name
        path.chmod((directory.mode & _MODES) | _OWNER)
        os.utime(path, (directory.mtime, directory.mtime))
    return count


def _check(member: tarfile.TarInfo, folder: Path, tops: set[str]) -> None:
    """Raise tarfile.TarError if a member is not what `relay send` puts into a stream."""
    parts = member.name.split("/")
    if len(tops) > 1 or {"", ".", ".."} & set(parts):
        raise tarfile.TarError("it is not one folder")
    if len(parts) == 1 and not member.isdir():
        raise tarfile.TarError("it is not one folder")
    if not (member.isreg() or member.isdir() or member.issym()):
        raise tarfile.TarError("it has something other than files, directories and symbolic links")
    if os.path.lexists(folder / member.name):
        raise tarfile.TarError("it has a name twice")


def _said(error: tarfile.TarError) -> str:
    """Return in some words why an archive is refused, without the names in it."""
    if isinstance(error, tarfile.FilterError):
        return "it has something that would be outside of its folder"
    return str(error) if type(error) is tarfile.TarError else "it is damaged"
