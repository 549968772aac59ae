"""Receive what a client goes on sending after the last response of its connection, and throw it away.

A response may come before the end of its request: an upload that is refused, or whose downloader leaves. If the server
closed then, with bytes unread or still coming in, the client's kernel would get a reset and throw the response away.
RFC 9112 section 9.6 wants the server to close its own side only, and to read on until the client has closed, or long
enough. By then the request's handler is over, and nothing of a transfer is held.
"""

import asyncio
from typing import Protocol

#: Maximum duration for one client, in seconds. 100 MB arrive within it at 27 Mbit/s.
_LONGEST = 30.0
#: Maximum duration once the node shuts down, in seconds.
_LONGEST_AT_SHUTDOWN = 2.0
#: Maximum seconds in which a client may send nothing. One that has stopped sending has had the time to read its
#: response.
_SILENCE = 5.0
#: Seconds between two looks at the time.
_LOOK = 1.0
#: Maximum number of clients at a time in a process. One costs what any connection costs: they share the memory that
#: they are received into. Those beyond it are closed at once.
_CLIENTS = 1000
#: Maximum bytes per second in a process, of all clients together. This many cost about a tenth of a core.
_RATE = 256 * 1024 * 1024
#: Debts of the rate up to this many seconds are not collected, because a timer costs more than that.
_NEGLIGIBLE = 0.02
#: Bytes received at a time.
_MEMORY = 256 * 1024


class Discards:
    """All discards of a process: the memory that they share, and the limits of their number and of their rate."""

    def __init__(self) -> None:
        self.memory = memoryview(bytearray(_MEMORY))
        self._current: set[Discard] = set()
        #: When all bytes received so far are within the rate, by the event loop's clock.
        self._paid_at = 0.0

    def __len__(self) -> int:
        return len(self._current)

    def admit(self, discard: "Discard") -> bool:
        """Count one more, unless there are too many. Return whether it was counted."""
        if len(self._current) >= _CLIENTS:
            return False
        self._current.add(discard)
        return True

    def release(self, discard: "Discard") -> None:
        self._current.discard(discard)

    def spend(self, size: int, now: float) -> float:
        """Record that `size` bytes were received. Return the seconds until they are within the rate."""
        self._paid_at = max(self._paid_at, now) + size / _RATE
        return self._paid_at - now


class Line(Protocol):
    """The client's transport, as a discard needs it."""

    def is_closing(self) -> bool: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...


class Discard:
    """What one client sends, thrown away. It receives as an intake does: `room`, `note_received`."""

    #: Bytes that have arrived and have not been taken.
    untaken = 0

    def __init__(self, line: Line, all_discards: Discards, *, most: int | None = None) -> None:
        """`most`: maximum bytes of a client that never sent a request, which gets less time too; None for others."""
        self._line = line
        self._all = all_discards
        self._most = most
        self._taken = 0
        self._loop = asyncio.get_running_loop()
        self._heard = self._loop.time()
        self._deadline = self._heard + (_LONGEST if most is None else _SILENCE)
        self._timer = self._loop.call_later(_LOOK, self._look)

    def room(self) -> memoryview:
        """Return memory to receive the next bytes into. All discards have the same, because nobody reads it."""
        return self._all.memory

    def note_received(self, size: int) -> None:
        """Record that `size` bytes were received into the room."""
        self._heard = self._loop.time()
        self._taken += size
        if self._most is not None and self._taken > self._most:
            self._line.abort()
        elif (debt := self._all.spend(size, self._heard)) > _NEGLIGIBLE and not self._line.is_closing():
            self._line.pause_reading()
            self._loop.call_later(debt, self._read_on)

    def hurry(self) -> None:
        """Come to an end soon, because the node shuts down."""
        self._deadline = min(self._deadline, self._loop.time() + _LONGEST_AT_SHUTDOWN)

    def end(self) -> None:
        """Record that the connection is gone."""
        self._timer.cancel()
        self._all.release(self)

    def _read_on(self) -> None:
        if not self._line.is_closing():
            self._line.resume_reading()

    def _look(self) -> None:
        self._timer = self._loop.call_later(_LOOK, self._look)
        now = self._loop.time()
        if now >= self._deadline:
            self._line.abort()
        elif now >= self._heard + _SILENCE and not self._line.is_closing():
            self._line.close()
