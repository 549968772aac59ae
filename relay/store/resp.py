"""The Redis serialization protocol (RESP2), for commands and replies that consist mostly of a file's bytes. No I/O.

redis-py copies each byte of a reply four times. Here a large string is never copied: in a command it is sent as it is,
between the bytes that frame it, and in a reply it is a slice of the block that it was received into. hiredis does the
rest.
https://redis.io/docs/latest/develop/reference/protocol-spec/
"""

from collections.abc import Callable, Sequence
from typing import Any, cast

import hiredis
from redis.exceptions import NoScriptError, ResponseError

from relay.buffers import Bytes

#: A command's name and its arguments.
Command = Sequence[str | int | Bytes]

#: hiredis's type stub says that a command is one word.
_pack = cast(Callable[[tuple[str | int | Bytes, ...]], bytes], hiredis.pack_command)
#: Maximum length, in bytes, of a string that is copied: a slice would keep the whole block alive.
_SMALL = 16 * 1024


class IncompleteError(Exception):
    """Raised if the reply is longer than what has arrived: it reaches at least up to offset `need`."""

    def __init__(self, need: int) -> None:
        super().__init__(need)
        self.need = need


def pack(commands: Sequence[Command]) -> list[Bytes]:
    """Return commands as bytes, in pieces to send one after the other. A large last argument is a piece of its own, not
    copied."""
    pieces: list[Bytes] = []
    for command in commands:
        last = command[-1]
        if isinstance(last, (bytes, memoryview)) and len(last) > _SMALL:
            packed = _pack(tuple(command[:-1]))
            arguments = packed[packed.index(b"$") :]
            pieces += [b"*%d\r\n%b$%d\r\n" % (len(command), arguments, len(last)), last, b"\r\n"]
        else:
            pieces.append(_pack(tuple(command)))
    return pieces


def error(line: str) -> ResponseError:
    """Return the exception for an error reply. `failures.failure_of` tells what it means."""
    return (NoScriptError if line.startswith("NOSCRIPT") else ResponseError)(line)


def reader() -> hiredis.Reader:
    """Return a parser of small replies. It returns the same values as `parse`, and is many times as fast."""
    return hiredis.Reader(replyError=error)


def parse(block: bytearray, start: int, end: int) -> tuple[Any, int]:
    """Parse the reply that begins at offset `start` of a block that is filled up to offset `end`.

    Return the reply and the offset after it. Strings are bytes, or slices of the block if they are large. A reply that
    is an error is returned, not raised. Raise IncompleteError.
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
