"""`relay send` and `relay receive` as processes that run beside the test."""

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.support.wait import wait_until

_ADDRESS = re.compile(r"https?://\S+")


def through(port: int, address: str) -> str:
    """Return the same address at another port, as that of a proxy or of another node."""
    return re.sub(r":\d+/", f":{port}/", address)


class Command:
    """One process of the client. It is a context manager, so that it does not outlive the test."""

    def __init__(
        self,
        *arguments: str | Path,
        cwd: Path | None = None,
        environment: Mapping[str, str] | None = None,
        stdin: int | None = subprocess.DEVNULL,
    ) -> None:
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("RELAY_")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "relay", *map(str, arguments)],
            cwd=cwd,
            env={**inherited, "PYTHONPATH": str(Path(__file__).parents[2]), **(environment or {})},
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert self.process.stderr is not None
        os.set_blocking(self.process.stderr.fileno(), False)
        #: What it has said so far on stderr.
        self.said = ""

    def __enter__(self) -> "Command":
        return self

    def __exit__(self, *exception: object) -> None:
        self.process.kill()
        self.feed(b"")
        self.process.communicate()

    def feed(self, data: bytes) -> None:
        """Write the data to its stdin, and close that."""
        if self.process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.write(data)
                self.process.stdin.close()
            self.process.stdin = None  # otherwise communicate() would flush it again

    def hear(self) -> str:
        """Return what it has said so far on stderr."""
        assert self.process.stderr is not None
        if not self.process.stderr.closed:
            self.said += (self.process.stderr.read() or b"").decode()
        return self.said

    def wait_for(self, words: str) -> str:
        """Wait until it has said this on stderr. Return all that it has said."""
        wait_until(lambda: words in self.hear() or self.process.poll() is not None, f"{words!r} to be said")
        assert words in self.hear(), self.said
        return self.said

    def address(self) -> str:
        """Return the address that a `send` prints."""
        found = _ADDRESS.search(self.wait_for("curl -fOJ").partition("curl -fOJ")[2])
        assert found
        return found[0]

    def stop(self) -> None:
        """Stop it by SIGTERM: a sender then tells the relay that it is gone."""
        self.process.terminate()
        assert self.finish() == 130, self.said

    def finish(self, timeout: float = 90) -> int:
        """Wait until it exits, and return its exit status. There must be no traceback."""
        self.process.wait(timeout)
        assert "Traceback" not in self.hear(), self.said
        return self.process.returncode


def send(server: str, *arguments: str | Path, **options: object) -> Command:
    return Command("send", "--server", server, *arguments, **options)  # type: ignore[arg-type]


def receive(*arguments: str | Path, **options: object) -> Command:
    return Command("receive", *arguments, **options)  # type: ignore[arg-type]
