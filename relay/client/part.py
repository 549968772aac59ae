"""How a received file gets its final name: written to a hidden part beside it, and moved there only when it is whole.

The part's name has the upload's ETag, so a later run finds it, and cannot take it for a part of another upload.
"""

import contextlib
import errno
import fcntl
import os
import re
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from relay.client.failures import Exit, Failure
from relay.client.naming import shortened
from relay.client.source import PIECE
from relay.names import NAME_MAX

_TAG = re.compile(r'"([A-Za-z0-9_-]{1,64})"')
_PART = re.compile(r"\.([A-Za-z0-9_-]{1,64})\.part$")
#: What link() fails with on file systems that have no hard links.
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}


def part_path(target: Path, etag: str) -> Path:
    """Return where the part of an upload is while `target` is not whole. Raise Failure if the ETag is none of relay."""
    match = _TAG.fullmatch(etag)
    if match is None:
        raise Failure(Exit.CORRUPTED, "the relay gives no ETag by which the upload could be told from others")
    ending = f".{match[1]}.part"
    return target.with_name("." + shortened(target.name, NAME_MAX - 1 - len(ending)) + ending)


def write_all(fd: int, data: bytes) -> None:
    """Write all of the data. Raise OSError."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def tags_of_parts(target: Path) -> list[str]:
    """Return the ETags of the uploads of which a part is beside the target."""
    found: list[str] = []
    with contextlib.suppress(OSError):
        for path in target.parent.iterdir():
            match = _PART.search(path.name)
            if match and part_path(target, tag := f'"{match[1]}"').name == path.name:
                found.append(tag)
    return found


def check_target(target: Path, *, overwrite: bool) -> None:
    """Raise Failure if nothing may be, or can be, written under this name."""
    if not target.parent.is_dir():
        raise Failure(Exit.LOCAL, f"there is no directory {target.parent}: make it, or choose another with -o")
    if target.is_dir():
        raise Failure(Exit.LOCAL, f"{target} is a directory: choose another name with -o")
    if os.path.lexists(target) and not overwrite:
        raise Failure(Exit.LOCAL, f"{target} exists already: use --overwrite, or choose another name with -o")


def check_space(folder: Path, missing: int) -> None:
    """Raise Failure if the disk of a folder has no room for so many bytes more."""
    free = shutil.disk_usage(folder).free
    if missing > free:
        raise Failure(
            Exit.LOCAL, f"the disk has {free} bytes left, and {missing} are needed: make room, or choose another (-o)"
        )


def trouble(target: Path, error: OSError) -> Failure:
    """Return what the command fails with that cannot write what is to become the target."""
    what = {
        errno.ENOSPC: "the disk is full: make room, and run the same command to go on",
        errno.EDQUOT: "your quota is used up: make room, and run the same command to go on",
        errno.EFBIG: "the file is larger than may be written here: choose another directory with -o",
    }.get(error.errno or 0, f"cannot write {target}: {error.strerror or error}; choose another place with -o")
    return Failure(Exit.LOCAL, what)


class Part:
    """An open part. It is a context manager; what it has written remains, for a later run to go on with."""

    def __init__(self, target: Path, etag: str) -> None:
        self.target = target
        self.path = part_path(target, etag)
        try:
            # Nobody can plant a link here that leads elsewhere.
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise trouble(self.target, error) from None
        try:
            if not stat.S_ISREG(os.fstat(self._fd).st_mode):
                raise Failure(Exit.LOCAL, f"{self.path} is no regular file: remove it")
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            #: Bytes that it has.
            self.size = os.lseek(self._fd, 0, os.SEEK_END)
        except BlockingIOError:
            os.close(self._fd)
            raise Failure(Exit.LOCAL, "another `relay receive` is writing this file: wait until it ends") from None
        except BaseException:
            os.close(self._fd)
            raise

    def __enter__(self) -> "Part":
        return self

    def __exit__(self, kind: object, *exception: object) -> None:
        if kind is not None and self.size == 0:  # there is nothing to go on with
            with contextlib.suppress(OSError):
                self.path.unlink()
        os.close(self._fd)

    def write(self, data: bytes) -> None:
        """Append the data. Raise Failure."""
        try:
            write_all(self._fd, data)
        except OSError as error:
            raise trouble(self.target, error) from None
        self.size += len(data)

    def read(self) -> Iterator[bytes]:
        """Yield what it has. Raise Failure."""
        at = 0
        try:
            while piece := os.pread(self._fd, PIECE, at):
                yield piece
                at += len(piece)
        except OSError as error:
            raise Failure(Exit.LOCAL, f"cannot read {self.path}: {error.strerror}") from None

    def discard(self) -> None:
        """Delete it. Never fail."""
        with contextlib.suppress(OSError):
            self.path.unlink()

    def restart(self) -> None:
        """Throw away what it has. Raise Failure."""
        try:
            os.ftruncate(self._fd, 0)
            os.lseek(self._fd, 0, os.SEEK_SET)
        except OSError as error:
            raise trouble(self.target, error) from None
        self.size = 0

    def complete(self, *, overwrite: bool) -> None:
        """Give the file its final name, when all of it is on the disk. Raise Failure if the name is taken meanwhile."""
        try:
            os.fsync(self._fd)
            if overwrite:
                self.path.replace(self.target)
            else:
                self._move()
            directory = os.open(self.target.parent, os.O_RDONLY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        except FileExistsError:
            raise Failure(
                Exit.LOCAL, f"{self.target} exists by now: the received file is {self.path}; move it yourself"
            ) from None
        except OSError as error:
            raise trouble(self.target, error) from None

    def _move(self) -> None:
        """Rename the part. Raise FileExistsError if the final name is taken: rename() would replace that file."""
        try:
            self.target.hardlink_to(self.path)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            # Without hard links, the name is taken by an empty file, which is then replaced.
            os.close(os.open(self.target, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
            self.path.replace(self.target)
            return
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()
