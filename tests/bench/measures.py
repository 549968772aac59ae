"""What is measured, and how.  Each function makes one run against one target and answers its figures."""

import asyncio
import statistics
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from tests.bench.targets import Target
from tests.support.crowd import crowd, need_descriptors, request
from tests.support.wait import wait_until

GIB = 1024**3
#: Figures of one run, by name; the names end in their unit.
Figures = dict[str, float]


@contextmanager
def _timed(target: Target, figures: Figures, volume: int) -> Iterator[None]:
    """Adds what `volume` bytes took: seconds, MB/s, and the CPU seconds of all server processes for each GiB."""
    cpu, began = target.cpu_seconds(), time.perf_counter()
    yield
    seconds = time.perf_counter() - began
    figures["seconds"] = seconds
    figures["MB/s"] = volume / seconds / 1e6
    figures["CPU s/GiB"] = (target.cpu_seconds() - cpu) / (volume / GIB)


def streams(target: Target, source: Path, count: int) -> Figures:
    """`count` transfers of the source at once: all uploads wait, then all downloads begin.

    One curl does all the uploads, another all the downloads.  `fairness`: the time of the first to end over that
    of the last.
    """
    target.begin()
    figures: Figures = {}
    names = [f"s{number}" for number in range(count)]
    curl = [
        "curl",
        "-sS",
        "--no-progress-meter",
        "--fail",
        "--parallel",
        "--parallel-immediate",
        "--parallel-max",
        "300",
    ]
    ups = [part for name in names for part in ("-T", str(source), "-o", "/dev/null", target.upload_url(name))]
    downs = [part for name in names for part in ("-o", "/dev/null", target.download_url(name))]
    with subprocess.Popen([*curl, "-H", "Expect:", *ups]) as uploads:
        _wait_for_uploads(target, count)
        with _timed(target, figures, source.stat().st_size * count):
            said = _run([*curl, "-w", "%{size_download} %{time_total}\n", *downs])
            if uploads.wait() != 0:
                raise RuntimeError(f"{target.name}: an upload failed")
    rows = [line.split() for line in said.splitlines()]
    if [int(size) for size, _ in rows] != [source.stat().st_size] * count:
        raise RuntimeError(f"{target.name}: a download is not whole: {said}")
    times = [float(seconds) for _, seconds in rows]
    if count > 1:
        figures["fairness"] = min(times) / max(times)
    return figures


def _wait_for_uploads(target: Target, count: int) -> None:
    """Until all have connected, and their nodes have had half a second for what they do with them."""
    deadline = time.monotonic() + 30
    while _connections(target) < count and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.5)


def _connections(target: Target) -> int:
    """Established connections to the upload side's port."""
    port = f"{urlsplit(target.upload_base).port:04X}"
    lines = [line.split() for table in ("tcp", "tcp6") for line in Path("/proc/net", table).read_text().splitlines()]
    return sum(fields[1].endswith(":" + port) and fields[3] == "01" for fields in lines)


def small(target: Target, count: int, at_once: int = 32) -> Figures:
    """Transfers of 1 KiB, a fresh name each, `at_once` at a time, on raw sockets."""
    target.begin()
    figures: Figures = {}
    body = b"x" * 1024
    latencies: list[float] = []

    async def worker(numbers: Iterator[int]) -> None:
        for number in numbers:
            began = time.perf_counter()
            up = asyncio.create_task(_exchange(target.upload_url(f"n{number}"), "PUT", body))
            _, got = await asyncio.gather(up, _exchange(target.download_url(f"n{number}"), "GET"))
            latencies.append(time.perf_counter() - began)
            if not got.rstrip(b"\r\n0").endswith(body):
                raise RuntimeError(f"{target.name}: not whole: {got[:200]!r}")

    async def run() -> None:
        numbers = iter(range(count))
        await asyncio.gather(*(worker(numbers) for _ in range(at_once)))

    with _timed(target, figures, 1024 * count):
        asyncio.run(run())
    figures["pairs/s"] = count / figures["seconds"]
    figures["p50 ms"], figures["p99 ms"] = _percentiles(latencies)
    figures["CPU ms/pair"] = figures.pop("CPU s/GiB") * 1024 / GIB * 1000
    del figures["MB/s"]
    return figures


def first_byte(target: Target, count: int) -> Figures:
    """Milliseconds from a downloader's connect to the first byte of its body, one transfer after another."""
    target.begin()

    async def run() -> list[float]:
        latencies = []
        for number in range(count):
            up = asyncio.create_task(_exchange(target.upload_url(f"f{number}"), "PUT", b"x" * 1024))
            await asyncio.sleep(0.02)  # it waits by now; where not, the figure is the worse for it
            began = time.perf_counter()
            latencies.append(await _until_first_byte(target.download_url(f"f{number}")) - began)
            await up
        return latencies

    p50, p99 = _percentiles(asyncio.run(run()))
    return {"p50 ms": p50, "p99 ms": p99}


def waiting(target: Target, count: int) -> Figures:
    """Uploads that wait for their downloaders: what each costs, and what they cost together in ten seconds."""
    need_descriptors(2 * count)
    before, began = target.rss(), time.perf_counter()
    heads: list[bytes] = []
    for number in range(count):
        if number % 500 == 0:
            target.begin()
        heads.append(request("PUT", urlsplit(target.upload_url(f"w{number}")).path, Content_Length=5))
    with crowd(urlsplit(target.upload_base).port or 0, heads):
        wait_until(lambda: _settled(target), "the uploads to be taken", timeout=120)
        figures = {"seconds": time.perf_counter() - began, "KiB each": (target.rss() - before) / count / 1024}
        cpu = target.cpu_seconds()
        time.sleep(10)
        figures["% of a core"] = (target.cpu_seconds() - cpu) / 10 * 100
        figures["Redis connections"] = target.redis_connections()
    wait_until(lambda: _settled(target), "the uploads to be given up", timeout=120)
    return figures


def _settled(target: Target) -> bool:
    """Whether the target has had next to nothing to do for half a second."""
    cpu = target.cpu_seconds()
    time.sleep(0.5)
    return target.cpu_seconds() - cpu < 0.1


def memory(target: Target, source: Path) -> Figures:
    """One long stream: how much memory nodes and Redis have at the most, beyond what they had before."""
    before, in_redis = target.rss(), target.redis_bytes()
    most = {"node MiB": 0, "Redis MiB": 0}
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.05):
            most["node MiB"] = max(most["node MiB"], target.rss() - before)
            most["Redis MiB"] = max(most["Redis MiB"], target.redis_bytes() - in_redis)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        figures = streams(target, source, 1)
    finally:
        done.set()
        watcher.join()
    return {"seconds": figures["seconds"], **{name: value / 1024**2 for name, value in most.items()}}


def start(target: Target) -> Figures:
    """Seconds from the start of a process like the target's to its first answer."""
    return {"s to ready": target.start()}


def _percentiles(seconds: list[float]) -> tuple[float, float]:
    """The median and the 99th percentile, in milliseconds."""
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    return cuts[49] * 1000, cuts[98] * 1000


async def _connect(url: str, method: str, body: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    length = f"Content-Length: {len(body)}\r\n" if method == "PUT" else ""
    header = f"{method} {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n{length}\r\n"
    writer.write(header.encode() + body)
    return reader, writer


async def _exchange(url: str, method: str, body: bytes = b"") -> bytes:
    """One request on a connection of its own; answers the whole response, header and all."""
    reader, writer = await _connect(url, method, body)
    try:
        answer = await reader.read()
    finally:
        writer.close()
    if not answer.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(f"{method} {url}: {answer[:300]!r}")
    return answer


async def _until_first_byte(url: str) -> float:
    reader, writer = await _connect(url, "GET", b"")
    try:
        await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(1)
        arrived = time.perf_counter()
        await reader.read()
    finally:
        writer.close()
    return arrived


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout
