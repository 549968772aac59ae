"""The Redis serialization protocol (RESP2), for commands and replies that are mostly bytes of files.  Pure.

redis-py's own way copies each byte four times on its way in.  Here what is large is never copied: a command's bytes
go out as they are, behind those that frame them, and a reply's are slices of the block that they were received into.
All else is left to hiredis.
https://redis.io/docs/latest/develop/reference/protocol-spec/
"""

from collections.abc import Callable, Sequence
from typing import Any, cast

import hiredis
from redis.exceptions import (
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)

from relay.buffers import Bytes

#: A command's name and its arguments.
Command = Sequence[str | int | Bytes]

#: Its stub says that a command is one word.
_pack = cast(Callable[[tuple[str | int | Bytes, ...]], bytes], hiredis.pack_command)
#: Strings up to so many bytes are copied, so that they do not keep the block alive that they came in.
_SMALL = 16 * 1024


class MovedElsewhereError(TryAgainError):
    """Another node of the Redis Cluster has the key."""


_ERRORS: dict[str, type[RedisError]] = {
    "ASK": MovedElsewhereError,
    "CLUSTERDOWN": ClusterDownError,
    "LOADING": BusyLoadingError,
    "MASTERDOWN": MasterDownError,
    "MOVED": MovedElsewhereError,
    "NOPERM": NoPermissionError,
    "NOSCRIPT": NoScriptError,
    "OOM": OutOfMemoryError,
    "READONLY": ReadOnlyError,
    "TRYAGAIN": TryAgainError,
}


class IncompleteError(Exception):
    """The reply goes on beyond what has arrived; at least up to offset `need`."""

    def __init__(self, need: int) -> None:
        super().__init__(need)
        self.need = need


def pack(commands: Sequence[Command]) -> list[Bytes]:
    """The commands as bytes to send one after the other; a large last argument stands by itself, uncopied."""
    pieces: list[Bytes] = []
    for command in commands:
        *others, last = command
        if isinstance(last, bytes | memoryview) and len(last) > _SMALL:
            packed = _pack(tuple(others))
            arguments = packed[packed.index(b"$") :]
            pieces += [b"*%d\r\n%b$%d\r\n" % (len(command), arguments, len(last)), last, b"\r\n"]
        else:
            pieces.append(_pack(tuple(command)))
    return pieces


def error(line: str) -> RedisError:
    """What redis-py makes of an error reply."""
    return _ERRORS.get(line.partition(" ")[0], ResponseError)(line)


def reader() -> hiredis.Reader:
    """Takes replies that are not large out of bytes which are fed to it; as `parse` does, but many times as fast."""
    return hiredis.Reader(replyError=error)


def parse(block: bytearray, start: int, end: int) -> tuple[Any, int]:
    """The reply that begins at offset `start` of what has arrived up to `end`, and the offset after it.

    Strings are bytes, or slices of the block where they are large; an error is a value, not raised.  Raises
    IncompleteError.
    """
    stop = block.find(b"\r\n", start, end)
    if stop < 0:
        raise IncompleteError(end + 1)
    kind, line, after = block[start : start + 1], bytes(block[start + 1 : stop]), stop + 2
    if kind == b"$":
        return _string(block, int(line), after, end)
    if kind == b"*":
        return _array(block, int(line), after, end)
    if kind == b":":
        return int(line), after
    if kind == b"-":
        return error(line.decode(errors="replace")), after
    return line, after


def _string(block: bytearray, size: int, start: int, end: int) -> tuple[Bytes | None, int]:
    if size < 0:
        return None, start
    stop = start + size
    if stop + 2 > end:
        raise IncompleteError(stop + 2)
    view = memoryview(block)[start:stop]
    return (bytes(view) if size <= _SMALL else view), stop + 2


def _array(block: bytearray, count: int, start: int, end: int) -> tuple[list[Any] | None, int]:
    if count < 0:
        return None, start
    items, at = [], start
    for _ in range(count):
        item, at = parse(block, at, end)
        items.append(item)
    return items, at
