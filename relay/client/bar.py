"""The line that a command shows on a terminal while bytes move: name, bar, share, bytes, rate and time left.

Only this module imports rich, which takes a while. Scripts do without.
"""

import contextlib
import os
import signal
import sys
import time
from collections import deque
from types import FrameType
from typing import IO, Any, cast

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Column, Table
from rich.text import Text

from relay.client.naming import shown
from relay.client.report import Lines, amount_of, size_of

#: Seconds over which the rate is taken.
_WINDOW = 5.0
#: Seconds without a byte after which the rate begins anew, and after which the line says so. A sender learns every
#: second or so how far the receiver is.
_PAUSE, _SILENT = 2.0, 3.0
#: Columns that a terminal must have to show everything, and to show more than the share.
_WIDE, _NARROW = 64, 30


class Pace:
    """How fast bytes move. Pure: times are passed in, in seconds."""

    def __init__(self) -> None:
        self._samples = deque[tuple[float, int]]()

    def sample(self, now: float, done: int) -> None:
        """Note that `done` bytes are there at this time."""
        if self._samples:
            then, before = self._samples[-1]
            if done == before:
                return
            if done < before or now - then > _PAUSE:
                self._samples.clear()  # a rate over a pause is of no use for what is to come
        self._samples.append((now, done))
        while len(self._samples) > 2 and now - self._samples[0][0] > _WINDOW:  # noqa: PLR2004
            self._samples.popleft()

    @property
    def rate(self) -> float:
        """The bytes a second of late; 0 if that is unknown."""
        if not self._samples:
            return 0.0
        (begun, first), (ended, last) = self._samples[0], self._samples[-1]
        return (last - first) / (ended - begun) if ended > begun else 0.0

    def silence(self, now: float) -> float:
        """Return the seconds since the last byte, if those are too many to be passed over; else 0."""
        silence = now - self._samples[-1][0] if self._samples else 0.0
        return silence if silence > _SILENT else 0.0


def facts(done: int, total: int | None, rate: float, note: str, width: int) -> str:
    """Return what is beside the bar, in a terminal of `width` columns. `note` is what holds the transfer up."""
    share = "" if total is None else f"{100 * done // total if total else 100:3} %"
    pace = note
    if not note and rate:
        left = "" if total is None else f"  {_clock((total - done) / rate)}"
        pace = f"{size_of(rate)}/s{left}"
    parts = (share, amount_of(done, total) if width >= _WIDE or not share else "", pace if width >= _NARROW else "")
    return "  ".join(filter(None, parts))


def _clock(seconds: float) -> str:
    minutes, second = divmod(round(min(seconds, 359_999)), 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}:{minute:02}:{second:02}" if hour else f"{minute}:{second:02}"


class _Terminal:
    """stderr. If it is gone, only what is written to it is lost."""

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            sys.stderr.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stderr, name)


class Bar(Lines):
    """Shows the line on stderr, which is a terminal. It appears with the first bytes. Make it in the main thread."""

    def __init__(self, label: str) -> None:
        self._label = shown(label)
        self._done = 0
        self._total: int | None = None
        self._pace = Pace()
        self._note = ""
        self._is_over = False
        self._console = Console(file=cast(IO[str], _Terminal()))
        self._live = Live(
            get_renderable=self._line,
            console=self._console,
            refresh_per_second=5,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._suspending = signal.getsignal(signal.SIGTSTP)
        if self._suspending == signal.SIG_DFL:
            signal.signal(signal.SIGTSTP, self._suspend)

    def say(self, line: str) -> None:
        if self._live.is_started:
            self._note = line
        else:
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def progress(self, done: int, total: int | None) -> None:
        if done != self._done:
            self._note = ""
        self._done, self._total = done, total
        if not self._live.is_started and not self._is_over:
            self._live.start()

    def reconnecting(self, attempt: int, share: str, why: str) -> None:
        if self._live.is_started:
            self._note = f"reconnecting ({attempt})"
        else:
            super().reconnecting(attempt, share, why)

    def done(self, line: str, **facts: Any) -> None:
        self._done = facts.get("bytes", self._done)
        self.close()
        self.say(line)

    def failed(self, status: int, line: str) -> None:
        self.close()
        super().failed(status, line)

    def close(self) -> None:
        self._is_over = True
        self._live.stop()
        if self._suspending == signal.SIG_DFL:
            signal.signal(signal.SIGTSTP, self._suspending)

    def _line(self) -> Table:
        """Return the line as of now."""
        now, done, total = time.monotonic(), self._done, self._total
        self._pace.sample(now, done)
        note = self._note
        if not note and (silence := self._pace.silence(now)):
            note = f"no bytes for {silence:.0f} s"
        rate = self._pace.rate
        if self._is_over:
            note, rate, total = "", 0.0, done if total is None else total
        width = self._console.width
        line = Table.grid(
            Column(no_wrap=True, overflow="ellipsis", max_width=max(8, width // 4)),
            Column(ratio=1),
            Column(no_wrap=True, overflow="ellipsis"),
            padding=(0, 1),
            expand=True,
        )
        bar = ProgressBar(total=total, completed=done) if total != 0 else ProgressBar(total=1, completed=1)
        line.add_row(Text(self._label), bar, Text(facts(done, total, rate, note, width)))
        return line

    def _suspend(self, number: int, frame: FrameType | None) -> None:
        """On Ctrl-Z, leave the terminal as it was. Draw the line anew when the command goes on."""
        is_shown = self._live.is_started
        self._live.stop()
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)  # returns when the command goes on
        signal.signal(signal.SIGTSTP, self._suspend)
        if is_shown:
            self._live.start()
