"""Clients that come back, and how each is told to download one URL into one file until it is whole."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.cutting import Cut

#: Seconds without a byte after which each client gives a connection up. A busy machine lets a client that is well wait
#: for its processor and its disk. What its kernel has received by then counts as delivered, and cannot be had again.
SILENCE = 30
#: The first curl whose --retry goes on where it was, instead of throwing away what it has.
_RESUMES = (8, 17)
#: A newer curl than the system's, if there is one; see .ci/new-curl.
_NEW_CURL = os.environ.get("RELAY_TEST_NEW_CURL", "curl")


@dataclass(frozen=True)
class Resumer:
    """One client; `arguments` returns those of its program, given the URL, the file, and the seconds of silence after
    which it gives a connection up.
    """

    name: str
    program: str
    arguments: Callable[[str, str, int], list[str]]
    #: After which cuts it can go on with a file whose length it is not told.
    without_length: tuple[Cut, ...] = tuple(Cut)

    def is_there(self) -> bool:
        return bool(shutil.which(self.program)) and (self.program != _NEW_CURL or _curl_version() >= _RESUMES)

    def download(self, url: str, file: Path, silence: int) -> str:
        """Run it until it is content. Return what it said if it gave up, otherwise nothing."""
        command = [self.program, *self.arguments(url, str(file), silence)]
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=100, check=False
            )
        except subprocess.TimeoutExpired as late:
            return f"not content after {late.timeout} s: {late.stderr!r}"
        return f"exit {done.returncode}: {done.stdout[-500:]}{done.stderr[-500:]}" if done.returncode else ""


def curl_loop(url: str, file: str, silence: int = SILENCE, more: str = "") -> list[str]:
    """Return the arguments of sh for the loop of the documentation, with `more` options of curl."""
    options = f"{more} -fsS -C - --speed-time {silence} --speed-limit 1"
    return ["-c", f'until curl {options} -o "$1" "$0"; do sleep 0.1; done', url, file]


def _curl_retry(url: str, file: str, silence: int) -> list[str]:
    options = ["-fsS", "-C", "-", "--speed-time", str(silence), "--speed-limit", "1"]
    return [*options, "--retry", "20", "--retry-delay", "1", "--retry-all-errors", "-o", file, url]


def _wget(url: str, file: str, silence: int) -> list[str]:
    return ["-nv", "-c", "--tries=20", "--waitretry=1", f"--timeout={silence}", "-O", file, url]


def _aria2(url: str, file: str, silence: int) -> list[str]:
    options = ["-x1", "-s1", "-c", "--max-tries=20", "--retry-wait=1", f"--timeout={silence}", "--file-allocation=none"]
    return ["-q", *options, "-d", "/", "-o", file[1:], url]


def _curl_version() -> tuple[int, ...]:
    said = subprocess.run([_NEW_CURL, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.match(r"curl (\d+)\.(\d+)", said)
    return tuple(map(int, found.groups())) if found else ()


_RESUMERS = [
    Resumer("until curl", "sh", curl_loop),
    Resumer("curl --retry", _NEW_CURL, _curl_retry),
    # wget counts on the last byte in Content-Range, which is not known, and never has enough (1.21).
    Resumer("wget", "wget", _wget, without_length=()),
    # aria2 refuses a Content-Range without the length, which RFC 9110 section 14.4 allows.
    Resumer("aria2", "aria2c", _aria2, without_length=()),
]


def resumers() -> list[Resumer]:
    """Return those of the clients that are on this machine. Skip the test if there are none."""
    return [each for each in _RESUMERS if each.is_there()] or pytest.skip("none of curl, wget and aria2 is on PATH")
