"""curl as a client: one process for each transfer, as different people would have."""

import contextlib
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.bench.targets import BrokenError

#: Seconds after which a curl gives up, whatever it was doing.
MOST = 300


class Curls:
    """Curls that have started and wait for their URLs, so that starting them costs nothing while time is taken.

    A context manager: none of them outlives it.
    """

    def __init__(self, count: int, what: str, *options: str | Path) -> None:
        """`what` they do, for the line that says that one of them failed."""
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
        """Gives each its URL, and so lets it begin."""
        for process, url in zip(self._processes, urls, strict=True):
            stdin, process.stdin = process.stdin, None  # communicate() would flush it again
            assert stdin
            # One that has ended already is for `finish` to find.
            with contextlib.suppress(BrokenPipeError):
                stdin.write(f'url = "{url}"\n')
            with contextlib.suppress(BrokenPipeError):
                stdin.close()

    def check(self) -> None:
        """Fails when one of them has failed already."""
        for process in self._processes:
            if process.poll():
                self._fail(process, process.communicate()[1])

    def finish(self) -> list[list[str]]:
        """Waits for the end of all; answers the words that each printed."""
        deadline = time.monotonic() + MOST
        said = []
        for process in self._processes:
            output, error = process.communicate(timeout=max(deadline - time.monotonic(), 1))
            if process.returncode:
                self._fail(process, error)
            said.append(output.split())
        return said

    def _fail(self, process: subprocess.Popen[str], error: str) -> None:
        raise BrokenError(f"{self._what} failed, exit status {process.returncode}: {error.strip() or 'not a word'}")
