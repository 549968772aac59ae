"""The stream of a transfer: what lies between its two sides.

If the two clients are on different nodes, it is a `RedisStream`. If they are on one node, it is a `LocalStream`, and
the bytes do not leave the process. Everything else about that transfer is in Redis too: nodes and operators can see and
end it, and its outcome is decided there.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from relay.buffers import Bytes
from relay.errors import StoreUnavailable
from relay.states import Outcome
from relay.store.commands import Commands, is_out_of_memory, is_refused_id, ms, result
from relay.store.nodes import wake_up
from relay.store.offsets import chunk_id, end_id, offset_of, offsets_after, trim_id
from relay.store.records import Transfer
from relay.store.resp import Command

#: Maximum bytes of a leg that are written with the end in one step. A script copies them, and nobody can cancel the
#: transfer from then on: see `download_response`, which lets a client be behind by some more than that.
SMALL = 16 * 1024
#: Seconds that the same round trip then waits for the downloader to have it.
_TAKEN_SOON = 0.5
_OUTCOMES = {outcome.value.encode(): outcome for outcome in Outcome}


@dataclass(frozen=True, slots=True)
class Entry:
    """One stream entry: a chunk up to byte offset `offset`, or, with `outcome`, the end of the stream there.

    `is_finishing`: the transfer is finishing, so the download need not ask for the last bytes.
    """

    offset: int
    data: Bytes = b""
    outcome: Outcome | None = None
    is_finishing: bool = False


@dataclass(frozen=True, slots=True)
class Ack:
    """How many bytes the downloader has taken, and how the transfer ended, if it has.

    `id` is the entry's. Pass it to `acks` to wait for the next one.
    """

    id: str
    position: int
    outcome: Outcome | None = None


#: The acknowledgement that `join` makes, before the first one that the downloader makes.
JOINED = Ack("0-1", 0)


class Stream(Protocol):
    """Chunks in one direction, acknowledgements in the other. Each method raises StoreUnavailable."""

    #: The ID of the stream's last entry that Redis is known to have.
    written: str

    async def append(self, chunks: Sequence[Bytes], *, offset: int, whole: bool = False) -> Ack | None:
        """Write chunks, the last of which reaches up to byte offset `offset`, and return the downloader's progress.

        `whole`: this completes the upload, so the end marker follows. Of a small upload, this may wait a moment for its
        end. Return None if the stream is gone: then the transfer has ended.
        """

    async def acks(self, *, after: str, timeout: float) -> Ack | None:
        """Wait up to `timeout` seconds for an acknowledgement after the entry with ID `after`, or for the end."""

    def wake_with_read(self, *, node: str, about: str) -> None:
        """Let the next read put a wake-up into the inbox of a node, too, in the same round trip if that is possible."""

    async def read(self, *, position: int, acknowledge: bool, count: int, timeout: float) -> list[Entry]:
        """Wait up to `timeout` seconds for entries after byte offset `position`, and return at most `count` of them.

        `acknowledge`: first tell the uploader's side that everything up to `position` was handed over.
        """


class RedisStream:
    """A stream through Redis; see `Stream`."""

    def __init__(self, commands: Commands, transfer: Transfer) -> None:
        self.written = chunk_id(0)
        self._commands = commands
        self._transfer = transfer
        self._keys = transfer.keys
        self._patience = commands.settings.transfer_patience
        #: Whether what is read may be worth not to be copied.
        self._is_large = transfer.length is None or transfer.length > SMALL
        #: The inbox and the wake-up that the next read puts into it.
        self._wake: tuple[str, str] | None = None

    async def append(self, chunks: Sequence[Bytes], *, offset: int, whole: bool = False) -> Ack | None:
        if whole and len(chunks) == 1 and len(chunks[0]) <= SMALL and self.written == chunk_id(0):
            return await self._append_whole(chunks[0], offset)
        offsets = offsets_after(chunks, last=offset)
        adds = [self._add(chunk_id(after), "d", chunk) for after, chunk in zip(offsets, chunks, strict=True)]
        if whole:
            adds.append(self._add(end_id(offset), "end", Outcome.COMPLETE.value))
        last = end_id(offset) if whole else chunk_id(offset)
        # All or none: a later chunk must not be written if an earlier one was refused because Redis lacked memory. A
        # repeat would take the refusal of the earlier chunk's ID, now too low, for a sign that it was written before.
        if len(adds) > 1:
            adds = [("MULTI",), *adds, ("EXEC",)]
        look = ("XREVRANGE", self._keys.acks, "+", "-", "COUNT", 1)

        async def write() -> tuple[list[Any], Any]:
            *replies, acks = await self._commands.connections.call(self._keys.chunks, [*adds, look])
            if len(adds) > 1:
                *queued, done = replies
                replies = done if isinstance(done, list) else [*queued, done]
            # An ID is refused if the entry is there already: this is a repeat of a write whose reply was lost. Or an
            # end marker is there, and then the acks tell the outcome too.
            return [result(reply) for reply in replies if not is_refused_id(reply)], result(acks)

        written, acks = await self._commands.repeat(write, patience=self._patience)
        self.written = last
        return None if None in written or not acks else _ack(acks[0])

    async def _append_whole(self, chunk: Bytes, offset: int) -> Ack | None:
        """Write the last chunk of a small upload and its end, and wait for the downloader in the same round trip."""
        keys, transfer = self._keys, self._transfer
        about: list[str | int | Bytes] = [transfer.id, transfer.leg, offset, chunk]
        commands = [
            self._commands.command("whole", [keys.transfer, keys.chunks], about),
            ("XREAD", "BLOCK", ms(_TAKEN_SOON), "STREAMS", keys.acks, JOINED.id),
        ]

        async def write() -> list[Any]:
            return list(map(result, await self._commands.connections.call(keys.chunks, commands)))

        written, acks = await self._commands.repeat(write, patience=self._patience, blocks=_TAKEN_SOON)
        self.written = end_id(offset)
        if acks:
            return _ack(acks[0][1][-1])
        return JOINED if written else None

    def _add(self, entry_id: str, field: str, value: str | Bytes) -> Command:
        return "XADD", self._keys.chunks, "NOMKSTREAM", entry_id, field, value

    async def acks(self, *, after: str, timeout: float) -> Ack | None:
        wait = ("XREAD", "BLOCK", ms(timeout), "STREAMS", self._keys.acks, after)

        async def read() -> Any:
            return result((await self._commands.connections.call(self._keys.acks, [wait]))[0])

        reply = await self._commands.repeat(read, patience=self._patience, blocks=timeout)
        return _ack(reply[0][1][-1]) if reply else None

    def wake_with_read(self, *, node: str, about: str) -> None:
        self._wake = self._commands.keys.inbox(node), about

    async def read(self, *, position: int, acknowledge: bool, count: int, timeout: float) -> list[Entry]:
        """Read entries; see `Stream`. What is acknowledged is trimmed in the same round trip."""
        at = chunk_id(position)
        acknowledging: list[Command] = [
            ("XTRIM", self._keys.chunks, "MINID", "=", trim_id(position)),
            ("XADD", self._keys.acks, "NOMKSTREAM", "MAXLEN", "=", 1, at, "to", position),
        ]
        wait = ("XREAD", "COUNT", count, "BLOCK", ms(timeout), "STREAMS", self._keys.chunks, at)
        waking = await self._waking()
        commands = [*waking, *(acknowledging if acknowledge else ()), wait]

        async def read() -> Any:
            *replies, entries = await self._commands.connections.call(self._keys.chunks, commands, large=self._is_large)
            woken, acknowledged = replies[: len(waking)], replies[len(waking) :]
            if not any(isinstance(reply, Exception) for reply in woken):
                self._wake = None  # otherwise the next read repeats it
            for done in acknowledged:
                # An ID is refused if this is a repeat, or if an end marker is there: the next entry or touch() tells.
                # If Redis lacks memory for an acknowledgement, the next read repeats it. Reading must go on, because it
                # is what makes room.
                if not is_refused_id(done) and not is_out_of_memory(done):
                    result(done)
            return result(entries)

        reply = await self._commands.repeat(read, patience=self._patience, blocks=timeout)
        return [_entry(entry) for entry in reply[0][1]] if reply else []

    async def _waking(self) -> list[Command]:
        """Return the command that the next read has to carry. Wake the other side now if it cannot carry it."""
        if self._wake is None:
            return []
        inbox, about = self._wake
        commands, arguments = self._commands, wake_up(about)
        if await commands.server_of(inbox) == await commands.server_of(self._keys.chunks):
            return [commands.command("wake", [inbox], arguments)]
        with contextlib.suppress(StoreUnavailable):  # then its own slow check makes up for it
            await commands.run("wake", [inbox], arguments)
        self._wake = None
        return []


#: An entry as Redis returns it: its ID, and its fields, each followed by its value.
Raw = tuple[bytes, list[Any]]


def _entry(raw: Raw) -> Entry:
    """Return the entry of the chunks."""
    entry_id, (field, value, *more) = raw
    if field == b"end":
        return Entry(offset_of(entry_id), outcome=_OUTCOMES[value], is_finishing=b"finishing" in more)
    return Entry(offset_of(entry_id), value)


def _ack(raw: Raw) -> Ack:
    """Return the acknowledgement in an entry of the acks."""
    entry_id, flat = raw
    fields = dict(zip(flat[::2], flat[1::2], strict=True))
    outcome = _OUTCOMES[fields[b"end"]] if b"end" in fields else None
    return Ack(entry_id.decode(), int(fields.get(b"to", 0)), outcome)
