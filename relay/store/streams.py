"""The stream of a transfer: what lies between its two sides.

Over Redis it is a `RedisStream`.  Where both clients are on one node it is a `LocalStream`, and the bytes do
not leave the process; all else about the transfer is in Redis as ever, so that nodes and operators can see and
end it, and how it ends is decided there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from relay.buffers import Bytes
from relay.states import Outcome
from relay.store.commands import Commands, is_out_of_memory, is_refused_id, ms, result
from relay.store.keys import TransferKeys
from relay.store.offsets import chunk_id, end_id, ends, offset_of, trim_id
from relay.store.resp import Command


@dataclass(frozen=True, slots=True)
class Entry:
    """One stream entry: a chunk ending at byte offset `end`, or, with `outcome`, the end of the stream."""

    end: int
    data: Bytes = b""
    outcome: Outcome | None = None


@dataclass(frozen=True, slots=True)
class Ack:
    """How far the downloader is, in bytes, and how it ended, if it has.  `id` is the entry's, to wait beyond."""

    id: str
    position: int
    outcome: Outcome | None = None


class Stream(Protocol):
    """Chunks in one direction, acknowledgements in the other.  Each method raises StoreUnavailable."""

    #: The ID of the last entry that Redis is known to have of it.
    written: str

    async def append(self, chunks: Sequence[Bytes], *, end: int, whole: bool = False) -> Ack | None:
        """Writes chunks, the last of which ends at byte offset `end`, and looks at the downloader's progress.

        `whole`: then the last entry, for that is all of the upload.  None: the stream is gone, so the transfer is over.
        """

    async def acks(self, *, after: str, timeout: float) -> Ack | None:
        """Waits up to `timeout` seconds for progress beyond the entry with ID `after`, or for the end."""

    async def read(self, *, position: int, acknowledge: bool, count: int, timeout: float) -> list[Entry]:
        """Waits up to `timeout` seconds for up to `count` entries after byte offset `position`.

        `acknowledge` first tells the uploader's side that everything up to `position` was handed over.
        """


class RedisStream:
    """A transfer's stream through Redis; see `Stream`."""

    def __init__(self, commands: Commands, keys: TransferKeys) -> None:
        self.written = chunk_id(0)
        self._commands = commands
        self._keys = keys
        self._patience = commands.settings.transfer_patience

    async def append(self, chunks: Sequence[Bytes], *, end: int, whole: bool = False) -> Ack | None:
        adds = [self._add(chunk_id(at), "d", chunk) for at, chunk in zip(ends(chunks, end=end), chunks, strict=True)]
        if whole:
            adds.append(self._add(end_id(end), "end", Outcome.COMPLETE.value))
        last = end_id(end) if whole else chunk_id(end)
        # All or nothing: of several chunks a later one must not get in where an earlier one did not, for want of
        # memory.  A repeat would then take the gap for what it had written before.
        if len(adds) > 1:
            adds = [("MULTI",), *adds, ("EXEC",)]
        look = ("XREVRANGE", self._keys.acks, "+", "-", "COUNT", 1)

        async def write() -> tuple[list[Any], Any]:
            *replies, acks = await self._commands.connections.call(self._keys.chunks, [*adds, look])
            if len(adds) > 1:
                *queued, done = replies
                replies = done if isinstance(done, list) else [*queued, done]
            # An entry that is there already is a repeat of a write whose reply was lost; or an end marker stands
            # behind it, and then the acks say so too.
            return [result(reply) for reply in replies if not is_refused_id(reply)], result(acks)

        written, acks = await self._commands.repeat(write, patience=self._patience)
        self.written = last
        return None if None in written or not acks else _ack(acks[0])

    def _add(self, entry_id: str, field: str, value: str | Bytes) -> Command:
        return "XADD", self._keys.chunks, "NOMKSTREAM", entry_id, field, value

    async def acks(self, *, after: str, timeout: float) -> Ack | None:
        wait = ("XREAD", "BLOCK", ms(timeout), "STREAMS", self._keys.acks, after)

        async def read() -> Any:
            return result((await self._commands.connections.call(self._keys.acks, [wait]))[0])

        reply = await self._commands.repeat(read, patience=self._patience, blocks=timeout)
        return _ack(reply[0][1][-1]) if reply else None

    async def read(self, *, position: int, acknowledge: bool, count: int, timeout: float) -> list[Entry]:
        """What is acknowledged is trimmed away, in the same round trip."""
        at = chunk_id(position)
        acknowledging: list[Command] = [
            ("XTRIM", self._keys.chunks, "MINID", "=", trim_id(position)),
            ("XADD", self._keys.acks, "NOMKSTREAM", "MAXLEN", "=", 1, at, "to", position),
        ]
        wait = ("XREAD", "COUNT", count, "BLOCK", ms(timeout), "STREAMS", self._keys.chunks, at)
        commands = [*(acknowledging if acknowledge else ()), wait]

        async def read() -> Any:
            *acknowledged, entries = await self._commands.connections.call(self._keys.chunks, commands, large=True)
            for done in acknowledged:
                # A repeat, or an end marker stands there: the next entry, or touch(), will tell.  Without memory
                # for it, it is said again with the next read: what is in Redis must be read to make room.
                if not is_refused_id(done) and not is_out_of_memory(done):
                    result(done)
            return result(entries)

        reply = await self._commands.repeat(read, patience=self._patience, blocks=timeout)
        return [_entry(entry) for entry in reply[0][1]] if reply else []


#: An entry as Redis has it: its ID, and its fields, each followed by its value.
Raw = tuple[bytes, list[Any]]


def _entry(raw: Raw) -> Entry:
    entry_id, (field, value, *_) = raw
    if field == b"end":
        return Entry(offset_of(entry_id), outcome=Outcome(value.decode()))
    return Entry(offset_of(entry_id), value)


def _ack(raw: Raw) -> Ack:
    """From an entry of the acks."""
    entry_id, flat = raw
    fields = dict(zip(flat[::2], flat[1::2], strict=True))
    outcome = Outcome(fields[b"end"].decode()) if b"end" in fields else None
    return Ack(entry_id.decode(), int(fields.get(b"to", 0)), outcome)
