"""A transfer between real clients. Whatever fails, what each client was told must be true."""

import re
from pathlib import Path

from relay.errors import FAILED_DEPENDENCY, RETRIED
from tests.support.cluster import Curl
from tests.support.wait import wait_until


class Watched:
    """An upload and its download, both by curl.

    If `source` is given, curl uploads that file at `rate` bytes per second. Otherwise the test feeds the upload.
    """

    def __init__(self, folder: Path, up: str, down: str, *, source: Path | None = None, rate: str = "1G") -> None:
        self.target = folder / "target"
        self.fed = b""
        self._source = source
        options = ("-w", "\n%{http_code}")
        self.upload = Curl("--limit-rate", rate, "-T", source or "-", *options, up, pipe=source is None)
        self.download = Curl("-N", "-o", self.target, *options, down + "?wait=60")
        self._ends: tuple[tuple[int, bytes], tuple[int, bytes]] | None = None

    def feed(self, data: bytes) -> None:
        """Upload more data and wait until it has arrived."""
        self.fed += data
        self.upload.write(data)
        self.wait_arrived(len(self.fed))

    def arrived(self) -> int:
        return self.target.stat().st_size if self.target.exists() else 0

    def wait_arrived(self, size: int) -> None:
        wait_until(lambda: self.arrived() >= size or self.download.process.poll() is not None, f"{size} bytes")
        assert self.arrived() >= size, self.download.finish()

    def finish(self) -> None:
        """Wait until both clients exit, and check that what they were told is true."""
        if self._ends is None:
            self.upload.close()
            with self.upload, self.download:
                self._ends = self.download.finish(), self.upload.finish()
        got, sent = self.target.read_bytes() if self.target.exists() else b"", self._sent()
        if self.answered or self.downloaded == 200:
            assert sent.startswith(got)
        if self.is_complete:
            assert got == sent, "a cut-off download looks complete"
        if self.status == 200:
            assert self.is_complete, "the uploader was told 200 for what did not arrive"

    def kill(self) -> None:
        """Kill the clients that still run."""
        with self.upload, self.download:
            pass

    def assert_complete(self) -> None:
        self.finish()
        assert (self.status, self.is_complete) == (200, True), self._ends

    def assert_broken(self, *statuses: int) -> None:
        """Check that the uploader got one of these statuses, and the downloader a broken response or an error.

        An upload from a pipe, once some of it has arrived, gets 424 instead of the statuses that curl retries.
        """
        self.finish()
        if self.fed:
            statuses = tuple(FAILED_DEPENDENCY if status in RETRIED else status for status in statuses)
        assert self.status in statuses, self._ends
        assert not self.is_complete

    @property
    def is_over(self) -> bool:
        return all(client.process.poll() is not None for client in (self.upload, self.download))

    @property
    def is_complete(self) -> bool:
        """Whether the download looks complete to its client."""
        assert self._ends
        return self._ends[0][0] == 0 and self.downloaded == 200

    @property
    def downloaded(self) -> int:
        """The HTTP status of the download, or 0 if there was no response."""
        assert self._ends
        return _status(self._ends[0][1])

    @property
    def status(self) -> int:
        """The HTTP status of the upload, or 0 if there was no response."""
        assert self._ends
        return _status(self._ends[1][1])

    @property
    def answered(self) -> bytes:
        """The response that the uploader got."""
        assert self._ends
        return self._ends[1][1]

    def _sent(self) -> bytes:
        return self._source.read_bytes() if self._source else self.fed


def _status(output: bytes) -> int:
    """Return the HTTP status that curl wrote last, before its own error message. Interim statuses count as none."""
    match = re.search(rb"\n(\d{3})(?:curl: .*)?\s*$", output, re.DOTALL)
    assert match, output
    return int(match[1]) if int(match[1]) >= 200 else 0
