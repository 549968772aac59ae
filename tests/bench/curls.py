"""curl as a client: one process per transfer, as with different users."""

import contextlib
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.bench.targets import BrokenError

#: Maximum time of a curl, in seconds.
MOST = 300


class Curls:
    """Curl processes that have started and wait for their URLs, so that the measured time does not include starting.

    This is a context manager, so that no process outlives it.
    """

    def __init__(self, count: int, what: str, *options: str | Path) -> None:
        """Start `count` processes. `what` names what each does, for the error message if one fails."""
        self._what = what
        command = ["curl", "-sS", "--fail", "--max-time", str(MOST), "-o", "/dev/null", "-K", "-", *map(str, options)]
        pipe = subprocess.PIPE
        self._processes: list[subprocess.Popen[str]] = []
        try:
            for _ in range(count):
                self._processes.append(subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True))
        except BaseException:
            self._end()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._end()

    def _end(self) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.communicate()

    def go(self, urls: list[str]) -> None:
        """Give each process its URL, which makes it begin."""
        for process, url in zip(self._processes, urls, strict=True):
            stdin, process.stdin = process.stdin, None  # otherwise communicate() would flush it again
            assert stdin
            # If a process has exited already, `finish` reports it.
            with contextlib.suppress(BrokenPipeError):
                stdin.write(f'url = "{url}"\n')
            with contextlib.suppress(BrokenPipeError):
                stdin.close()

    def check(self) -> None:
        """Raise BrokenError if one of them has failed already."""
        for process in self._processes:
            if process.poll():
                self._fail(process, process.communicate()[1])

    def finish(self) -> list[list[str]]:
        """Wait until all exit, and return the words that each printed."""
        deadline = time.monotonic() + MOST
        said = []
        for process in self._processes:
            output, error = process.communicate(timeout=max(deadline - time.monotonic(), 1))
            if process.returncode:
                self._fail(process, error)
            said.append(output.split())
        return said

    def _fail(self, process: subprocess.Popen[str], error: str) -> None:
        raise BrokenError(f"{self._what} failed, exit status {process.returncode}: {error.strip() or 'no message'}")
