"""Measures of one or many streams: their speed, how evenly they share it, and the memory they take."""

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from tests.bench.curls import Curls
from tests.bench.figures import GIB, MIB, Figures, settled, timed
from tests.bench.targets import BrokenError, Target
from tests.support.crowd import crowd, read_until, request
from tests.support.wait import wait_until


def streams(target: Target, source: Path, count: int) -> Figures:
    """Run `count` transfers of the source at once. All uploads wait first, and then all downloads begin.

    `fairness` is the mean rate of the slowest stream divided by that of the fastest. All have the same size, so it is
    the shortest time of a download divided by the longest.
    """
    return _streams(target, source, count, contextlib.nullcontext())


def _streams(target: Target, source: Path, count: int, meanwhile: contextlib.AbstractContextManager[object]) -> Figures:
    figures: Figures = {}
    size = source.stat().st_size
    names = [f"s{number}" for number in range(count)]
    with (
        Curls(count, "a download", "-w", "%{size_download} %{time_total}") as downloads,
        _uploads(target, source, names) as uploads,
        meanwhile,
        timed(target, figures),
    ):
        downloads.go([target.download_url(name) for name in names])
        ends = downloads.finish()
        sizes = [int(taken) for (taken,) in uploads.finish()]
    if {*sizes, *(int(got) for got, _ in ends)} != {size}:
        raise BrokenError(f"of {size} bytes, {[got for got, _ in ends]} arrived and {sizes} were sent")
    figures["MB/s"] = size * count / figures["seconds"] / 1e6
    figures["CPU s/GiB"] = figures.pop("CPU s") / (size * count / GIB)
    if count > 1:
        times = [float(seconds) for _, seconds in ends]
        figures["fairness"] = min(times) / max(times)
    return figures


@contextlib.contextmanager
def _uploads(target: Target, source: Path, names: list[str]) -> Iterator[Curls]:
    """Start uploads of the source that wait. They send no `Expect`, because the targets differ in when they send the
    100 Continue."""
    target.begin()
    with Curls(len(names), "an upload", "-H", "Expect:", "-w", "%{size_upload}", "-T", source) as uploads:
        uploads.go([target.upload_url(name) for name in names])

        def waiting() -> bool:
            uploads.check()
            time.sleep(0.05)
            return _connections(target) >= len(names)

        wait_until(waiting, f"{len(names)} uploads to connect", timeout=60)
        time.sleep(0.5)  # the time that the nodes need to take the uploads
        yield uploads


def _connections(target: Target) -> int:
    """Return the number of established connections to the port of the upload side."""
    port = f"{urlsplit(target.upload_base).port:04X}"
    lines = [line.split() for table in ("tcp", "tcp6") for line in Path("/proc/net", table).read_text().splitlines()]
    return sum(fields[1].endswith(":" + port) and fields[3] == "01" for fields in lines)


@dataclass
class _Watch:
    """Records the target's memory 20 times per second, in a thread."""

    target: Target
    #: The samples: the time in seconds, the resident memory of the nodes and the memory used by Redis, both in bytes.
    looks: list[tuple[float, int, int]] = field(default_factory=list)

    def __enter__(self) -> None:
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def __exit__(self, *exception: object) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._done.is_set():
            self.looks.append((time.monotonic(), self.target.rss(), self.target.redis_bytes()))
            self._done.wait(0.05)


def long_stream(target: Target, source: Path) -> Figures:
    """Run one long stream. Return the maximum growth of memory over that at rest, in its first and second half."""
    at_rest = target.rss(), target.redis_bytes()
    watch = _Watch(target)
    figures = _streams(target, source, 1, watch)
    middle = (watch.looks[0][0] + watch.looks[-1][0]) / 2
    first = [look for look in watch.looks if look[0] <= middle]
    second = [look for look in watch.looks if look[0] >= middle]
    for column, what in ((1, "node"), (2, "Redis")):
        for half, looks in (("first", first), ("second", second)):
            most = max(look[column] for look in looks) - at_rest[column - 1]
            figures[f"{what} MiB, {half} half"] = most / MIB
    return {name: value for name, value in figures.items() if "MiB" in name or name == "seconds"}


def held(target: Target, source: Path, count: int) -> Figures:
    """Run `count` streams whose downloaders have stopped reading, so that every buffer is full. Measure each one's
    memory."""
    at_rest = target.rss(), target.redis_bytes()
    names = [f"h{number}" for number in range(count)]
    with _uploads(target, source, names):
        heads = [request("GET", urlsplit(target.download_url(name)).path) for name in names]
        with crowd(urlsplit(target.download_base).port or 0, heads, receive_buffer=4096) as downloads:
            for download in downloads:
                if not read_until(download, b"\n").startswith(b"HTTP/1.1 200"):
                    raise BrokenError("a download was refused")
            wait_until(lambda: settled(target), "the streams to stall", timeout=60)
            wait_until(lambda: is_steady(target), "Redis to free the buffers of idle connections", timeout=60)
            figures = {
                "node MiB each": (target.rss() - at_rest[0]) / count / MIB,
                "Redis MiB each": (target.redis_bytes() - at_rest[1]) / count / MIB,
            }
    wait_until(lambda: settled(target), "the streams to be given up", timeout=60)
    return figures


def is_steady(target: Target) -> bool:
    """Return whether Redis uses as much memory as three seconds ago. It shrinks a connection's buffers after two idle
    seconds."""
    before = target.redis_bytes()
    time.sleep(3 if before else 0)
    return abs(target.redis_bytes() - before) <= before / 100
