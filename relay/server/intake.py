"""The intake of a request's body: from the client, by one of two ways, into a buffer, and out of it in chunks.

A body comes in pieces from the HTTP parser first. If its length is known, the connection then receives the rest
straight into the buffer: on the way through uvicorn and its parser each byte was copied four times, and each piece
woke a task. `MOVES` has every state of an intake and every legal move.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager
from enum import Enum
from time import monotonic
from typing import Protocol

from relay.buffers import Buffer, Bytes
from relay.errors import ClientGone
from relay.tasks import Signal


class State(Enum):
    """Where a body is."""

    #: It comes through the HTTP parser, if it comes at all yet.
    PARSED = "parsed"
    #: The connection receives it straight into the buffer.
    DIRECT = "direct"
    #: All of it has arrived.
    COMPLETE = "complete"
    #: The client left before all of it had arrived.
    LOST = "lost"
    #: Nobody wants the rest of it; what still comes is left to the server, which throws it away.
    DROPPED = "dropped"


class Event(Enum):
    """What happens to a body."""

    #: The connection begins to receive straight into the buffer.
    SWITCH = "switch"
    #: The last byte has arrived.
    END = "end"
    #: The client has left, or its body is shorter than it declared.
    BREAK = "break"
    #: The upload has ended, for whatever reason.
    DROP = "drop"


#: Every legal move.
MOVES: dict[tuple[State, Event], State] = {
    (State.PARSED, Event.SWITCH): State.DIRECT,
    (State.PARSED, Event.END): State.COMPLETE,
    (State.PARSED, Event.BREAK): State.LOST,
    (State.PARSED, Event.DROP): State.DROPPED,
    (State.DIRECT, Event.END): State.COMPLETE,
    (State.DIRECT, Event.BREAK): State.LOST,
    (State.DIRECT, Event.DROP): State.DROPPED,
    # A client may leave as soon as it has sent everything.
    (State.COMPLETE, Event.BREAK): State.COMPLETE,
    (State.COMPLETE, Event.DROP): State.COMPLETE,
    (State.LOST, Event.BREAK): State.LOST,
    (State.LOST, Event.DROP): State.LOST,
}
#: The states in which more may arrive.
_OPEN = (State.DIRECT, State.PARSED)


class Source(Protocol):
    """The client's connection, as an intake needs it."""

    def receive_into(self, intake: "BodyIntake") -> bool:
        """Receive the rest of the body straight into the intake, after what the parser has kept.

        Return False if that cannot be done, or if the parser had the rest.
        """

    def stop_receiving(self, missing: int) -> None:
        """Let the parser have what comes next: `missing` bytes of the body, and the requests behind it."""

    def pause_reading(self) -> None:
        """Do not read the client."""

    def resume_reading(self) -> None:
        """Read the client again."""

    def on_lost(self, callback: Callable[[], None]) -> AbstractContextManager[None]:
        """Call `callback` when the connection is lost, at once if it is already."""


class BodyIntake:
    """The body of one request.

    `fill` takes it in while somebody else takes chunks out: `wait`, `take`. Whenever the buffer is full, the client
    is not read until there is room again.
    """

    def __init__(
        self,
        body: AsyncIterator[bytes],
        source: Source,
        buffer: Buffer,
        *,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.state = State.PARSED
        #: Since when (by the clock, in seconds) the client owes us bytes; None if it owes nothing at the moment.
        self.waiting_since: float | None = None
        self._body = body
        self._source = source
        self._buffer = buffer
        self._clock = clock
        self._length: int | None = None
        #: Set when bytes have arrived, and when all of them have.
        self._arrived = Signal()
        #: Set when no more bytes will arrive. By itself, so that not every piece wakes the task that fills.
        self._over = Signal()
        self._has_room = Signal()

    def __repr__(self) -> str:
        return f"<BodyIntake {self.state.value}: {self.total} of {self._length}, {len(self._buffer)} not taken>"

    # -- for whoever fills it ------------------------------------------------------------------------------

    async def fill(self, *, length: int | None, limit: int | None = None) -> bool:
        """Take in the body until all of it has arrived. Return False as soon as it has more than `limit` bytes.

        `length`: the bytes that the client has declared, or None; raise ClientGone if fewer arrive.
        `limit`: None means unlimited.
        """
        self._length = length
        self._restart_clock()
        try:
            async for piece in self._body:
                self._buffer.add(piece)
                if limit is not None and self.total > limit:
                    return False  # and nobody is woken to take this piece, which would count as delivered
                self._note_arrival()
                if self._switch():
                    await self._receive_directly()
                    break
                await self._wait_for_room()
            if self.state is State.PARSED:  # whatever the server says, less than the declared length is not all of it
                self._move(Event.END if length in (None, self.total) else Event.BREAK)
            if self.state is State.LOST:
                raise ClientGone
            return True
        finally:
            self._move(Event.DROP)

    def _switch(self) -> bool:
        """Have the connection receive the rest straight into the buffer, if there is a rest and it can."""
        if self._length is None or self.total >= self._length or not self._source.receive_into(self):
            return False
        self._move(Event.SWITCH)
        return True

    async def _receive_directly(self) -> None:
        """Wait until the body is whole or its client has left, while `note_received` is called."""
        try:
            with self._source.on_lost(lambda: self._move(Event.BREAK)):
                self._pause_if_full()  # by what the parser had kept
                await self._over.wait()
        finally:
            if self.state is not State.COMPLETE:
                self._source.stop_receiving(self.missing)

    async def _wait_for_room(self) -> None:
        while self._buffer.full:
            self._has_room.clear()
            await self._has_room.wait()

    # -- for the connection --------------------------------------------------------------------------------

    @property
    def missing(self) -> int:
        """Bytes of the declared length that have not arrived."""
        return (self._length or 0) - self._buffer.total

    @property
    def untaken(self) -> int:
        """Bytes that have arrived and have not been taken."""
        return len(self._buffer)

    def add(self, piece: bytes) -> None:
        """Add what the parser had kept when the connection began to receive straight into the buffer."""
        self._buffer.add(piece)
        self._note_arrival()

    def room(self) -> memoryview:
        """Return memory to receive the next bytes into."""
        return self._buffer.room(self.missing)

    def note_received(self, size: int) -> None:
        """Record that `size` bytes were received into the room."""
        self._buffer.fill(size)
        self._note_arrival()
        if self._buffer.total == self._length:
            self._source.stop_receiving(0)
            self._move(Event.END)
        else:
            self._pause_if_full()

    def _note_arrival(self) -> None:
        self._restart_clock()
        self._arrived.set()

    def _pause_if_full(self) -> None:
        if self._buffer.full:
            self._source.pause_reading()

    # -- for whoever takes the chunks ----------------------------------------------------------------------

    @property
    def total(self) -> int:
        """Bytes that have arrived so far."""
        return self._buffer.total

    @property
    def is_whole(self) -> bool:
        """Whether all of the body has arrived."""
        return self.state is State.COMPLETE

    @property
    def is_exhausted(self) -> bool:
        """Whether all of the body has arrived and has been taken."""
        return self.is_whole and not self._buffer

    async def wait(self) -> None:
        """Wait until there is something to take, or the body is whole. Of a body that is lost or dropped, nothing more
        is to be taken: this waits for ever then."""
        while not self.is_whole and not (self._buffer and self.state in _OPEN):
            self._arrived.clear()
            await self._arrived.wait()

    def set_capacity(self, size: int) -> None:
        """Set how many bytes may lie in the buffer before the client is not read any more."""
        self._buffer.enough = size

    def take(self, *, full_only: bool = False) -> Bytes:
        """Return the next chunk; empty if there is none.

        `full_only`: leave the memory that is being received into, so that it grows to a whole chunk.
        """
        if not self._buffer.has_pieces and (full_only or not self._buffer):
            return b""
        chunk = self._buffer.take()
        if not self._buffer.full:
            self._has_room.set()
            if self.waiting_since is None:
                self._restart_clock()
                if self.state is State.DIRECT:
                    self._source.resume_reading()
        return chunk

    # -- state and stall clock -----------------------------------------------------------------------------

    def _move(self, event: Event) -> None:
        self.state = MOVES[self.state, event]
        self._restart_clock()
        if self.state not in _OPEN:
            self._over.set()
        if self.is_whole:
            self._arrived.set()

    def _restart_clock(self) -> None:
        owes = not self._buffer.full and self.state in _OPEN
        self.waiting_since = self._clock() if owes else None
