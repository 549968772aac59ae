"""What a command says while it works: to a person at a terminal, to a log, to a script, or nothing.

Everything goes to stderr, but for the objects of `--json`, which go to stdout.
"""

import contextlib
import json
import sys
import threading
import time
from typing import Any, Protocol

from relay.client.naming import shown

_UNITS = ("B", "KB", "MB", "GB", "TB", "PB")
_STEP = 1000
#: Seconds between two objects of progress for scripts.
_EVERY = 1.0


class Report(Protocol):
    """What a command tells of its work. Any thread may call these methods."""

    def ready(self, **facts: Any) -> None:
        """Say for scripts what the transfer is, as soon as it is known."""

    def say(self, line: str) -> None:
        """Say what is going on, once."""

    def progress(self, done: int, total: int | None) -> None:
        """Show how many bytes the receiver has, of how many; None if the total is unknown."""

    def reconnecting(self, attempt: int, share: str, why: str) -> None:
        """Say that the connection has broken, and which attempt to make another one this is."""

    def done(self, line: str, **facts: Any) -> None:
        """Say that all is well."""

    def failed(self, status: int, line: str) -> None:
        """Say what the command fails with."""

    def close(self) -> None:
        """Leave the terminal as it was."""


class Quiet:
    """Says nothing but errors."""

    def ready(self, **facts: Any) -> None: ...
    def say(self, line: str) -> None: ...
    def progress(self, done: int, total: int | None) -> None: ...
    def reconnecting(self, attempt: int, share: str, why: str) -> None: ...
    def done(self, line: str, **facts: Any) -> None: ...

    def failed(self, status: int, line: str) -> None:
        _write(f"relay: {line}")

    def close(self) -> None: ...


class Lines(Quiet):
    """Says in lines what happens, without a bar."""

    def say(self, line: str) -> None:
        _write(line)

    def reconnecting(self, attempt: int, share: str, why: str) -> None:
        self.say(f"reconnecting ({attempt}){share}: {shown(why)}")

    def done(self, line: str, **facts: Any) -> None:
        self.say(line)


class Json(Quiet):
    """Prints one object a line."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._next = 0.0

    def ready(self, **facts: Any) -> None:
        self._print("ready", **facts)

    def progress(self, done: int, total: int | None) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _EVERY
            self._print("progress", delivered=done, total=total)

    def reconnecting(self, attempt: int, share: str, why: str) -> None:
        self._print("reconnecting", attempt=attempt, reason=shown(why))

    def done(self, line: str, **facts: Any) -> None:
        self._print("done", **facts)

    def failed(self, status: int, line: str) -> None:
        try:
            self._print("failed", exit=status, line=line)
        except OSError:  # as on a full disk
            super().failed(status, line)

    def _print(self, event: str, **facts: Any) -> None:
        with self._lock:
            sys.stdout.write(json.dumps({"event": event} | facts) + "\n")
            sys.stdout.flush()


def size_of(count: float) -> str:
    """Return a number of bytes as people read it."""
    for unit in _UNITS:
        if count < _STEP or unit == _UNITS[-1]:
            break
        count /= _STEP
    return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"


def amount_of(done: int, total: int | None) -> str:
    """Return how many bytes are there, of how many, in one unit; only how many are there if the total is unknown."""
    if total is None:
        return size_of(done)
    size, unit = size_of(total).split()
    scale = _STEP ** _UNITS.index(unit)
    return f"{done}/{size} {unit}" if unit == "B" else f"{done / scale:.1f}/{size} {unit}"


def share_of(done: int, total: int | None) -> str:
    """Return ` at 41 %`, or how many bytes it is at if the total is unknown; empty at the beginning."""
    if not done:
        return ""
    return f" at {100 * done // total} %" if total else f" at {size_of(done)}"


def _write(line: str) -> None:
    with contextlib.suppress(OSError):  # as on a full disk: the transfer goes on without words
        sys.stderr.write(line + "\n")
        sys.stderr.flush()
