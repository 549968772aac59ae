"""The Redis serialization protocol (RESP2), for commands and replies that are mostly bytes of files.  Pure.

redis-py's own way copies each byte four times on its way in.  Here what is large is never copied: a command's bytes
go out as they are, between those that frame them, and a reply's are slices of the block that they were received into.
https://redis.io/docs/latest/develop/reference/protocol-spec/
"""

from collections.abc import Sequence
from typing import Any

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

from relay.flow import Bytes

#: A command's name and its arguments.
Command = Sequence[str | int | Bytes]

#: Strings up to so many bytes are copied, so that they do not keep the block alive that they came in.
_SMALL = 16 * 1024


class MovedElsewhereError(TryAgainError):
    """Another node of the Redis Cluster has the key."""


_ERRORS: dict[bytes, type[RedisError]] = {
    b"ASK": MovedElsewhereError,
    b"CLUSTERDOWN": ClusterDownError,
    b"LOADING": BusyLoadingError,
    b"MASTERDOWN": MasterDownError,
    b"MOVED": MovedElsewhereError,
    b"NOPERM": NoPermissionError,
    b"NOSCRIPT": NoScriptError,
    b"OOM": OutOfMemoryError,
    b"READONLY": ReadOnlyError,
    b"TRYAGAIN": TryAgainError,
}


class IncompleteError(Exception):
    """The reply goes on beyond what has arrived; at least up to offset `need`."""

    def __init__(self, need: int) -> None:
        super().__init__(need)
        self.need = need


def pack(commands: Sequence[Command]) -> list[Bytes]:
    """The commands as bytes to send one after the other; large arguments stand by themselves, uncopied."""
    pieces: list[Bytes] = []
    small: list[Bytes] = []
    for command in commands:
        small.append(b"*%d\r\n" % len(command))
        for argument in command:
            data = argument if isinstance(argument, bytes | memoryview) else str(argument).encode()
            small.append(b"$%d\r\n" % len(data))
            if len(data) > _SMALL:
                pieces += [b"".join(small), data]
                small = [b"\r\n"]
            else:
                small += [data, b"\r\n"]
    return [*pieces, b"".join(small)]


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
        code = line.partition(b" ")[0]
        return _ERRORS.get(code, ResponseError)(line.decode(errors="replace")), after
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
