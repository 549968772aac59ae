"""A command of the client on a terminal of its own."""

import codecs
import contextlib
import os
import pty
import subprocess
import sys
import termios
from collections.abc import Mapping
from pathlib import Path

from tests.support.wait import wait_until


class Terminal:
    """One command whose stdin, stdout and stderr are a pseudo-terminal. It is a context manager."""

    def __init__(
        self,
        *arguments: str | Path,
        columns: int = 80,
        cwd: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._fd, other = pty.openpty()
        self.resize(columns)
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("RELAY_", "COLUMNS"))}
        paths = {"PYTHONPATH": str(Path(__file__).parents[2]), "TERM": "xterm-256color"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "relay", *map(str, arguments)],
            cwd=cwd,
            env={**inherited, **paths, **(environment or {})},
            stdin=other,
            stdout=other,
            stderr=other,
            start_new_session=True,
        )
        os.close(other)
        os.set_blocking(self._fd, False)
        # A piece may end within a character.
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        #: What it has written so far.
        self.screen = ""

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *exception: object) -> None:
        self.process.kill()
        self.process.wait()
        self.vanish()

    def vanish(self) -> None:
        """Close the terminal. The process is not told by a signal, because it has a session of its own."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    def resize(self, columns: int) -> None:
        termios.tcsetwinsize(self._fd, (24, columns))

    def type(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def see(self) -> str:
        """Return what it has written so far."""
        with contextlib.suppress(OSError):  # nothing new, or the terminal has no other end any more
            while piece := os.read(self._fd, 65536):
                self.screen += self._decoder.decode(piece)
        return self.screen

    def wait_for(self, words: str) -> str:
        """Wait until it has written this. Return all that it has written."""
        wait_until(lambda: words in self.see() or self.process.poll() is not None, f"{words!r} to be written")
        assert words in self.see(), self.screen
        return self.screen

    def finish(self, timeout: float = 60) -> int:
        """Wait until it exits, and return its exit status. There must be no traceback."""
        wait_until(lambda: self.see() is not None and self.process.poll() is not None, "it to exit", timeout)
        assert "Traceback" not in self.see(), self.screen
        return self.process.returncode
