"""Small transfers on plain sockets in one thread, because the load must cost less than what it measures."""

import selectors
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from tests.bench.figures import Figures, percentiles, timed
from tests.bench.targets import BrokenError, Target

#: Size of a small transfer, in bytes.
SIZE = 1024
#: Maximum time without a byte from any connection, in seconds, before the run is given up.
_PATIENCE = 30


class _Exchange:
    """One request on a connection of its own."""

    def __init__(self, method: str, url: str, body: bytes = b"") -> None:
        parts = urlsplit(url)
        length = f"Content-Length: {len(body)}\r\n" if body else ""
        head = f"{method} {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n{length}\r\n"
        self._what = f"{method} {parts.path}"
        self.answer = b""
        self.socket = socket.create_connection((parts.hostname, parts.port), timeout=_PATIENCE)
        self.socket.sendall(head.encode() + body)

    def read(self) -> bool:
        """Wait for the next part of the response and keep it. Return False at its end, and raise if it is no 200."""
        piece = self.socket.recv(65536)
        self.answer += piece
        if not piece:
            self.socket.close()
            if not self.answer.startswith(b"HTTP/1.1 200"):
                raise BrokenError(f"{self._what} was answered {self.answer[:200]!r}")
        return bool(piece)

    def body_has_begun(self) -> bool:
        return bool(self.answer.partition(b"\r\n\r\n")[2])


@dataclass
class _Pair:
    """An upload and its download that begin together."""

    body: bytes
    began: float
    download: _Exchange
    unfinished: int = 2


def small(target: Target, count: int, at_once: int = 32) -> Figures:
    """Run transfers of 1 KiB, `at_once` at a time, each with a fresh name and fresh connections.

    The latency lasts from before the first client connects until both have their whole response. `client ms/pair` is
    the CPU time of the load itself. If that times the pairs per second is close to one core, the load is the limit.
    """
    target.begin()
    figures: Figures = {}
    cpu = time.process_time()
    with timed(target, figures):
        latencies = _pairs(target, count, at_once)
    figures["pairs/s"] = count / figures["seconds"]
    figures["p50 ms"], figures["p99 ms"] = percentiles(latencies)
    figures["longest ms"] = max(latencies) * 1000
    figures["CPU ms/pair"] = figures.pop("CPU s") / count * 1000
    figures["client ms/pair"] = (time.process_time() - cpu) / count * 1000
    return figures


def _pairs(target: Target, count: int, at_once: int) -> list[float]:
    """Run all pairs, and return how many seconds each took."""
    latencies: list[float] = []
    with selectors.DefaultSelector() as selector:
        coming = _begun(target, count, selector)
        under_way = sum(1 for _, _ in zip(range(at_once), coming, strict=False))
        while under_way:
            if not (ready := selector.select(_PATIENCE)):
                raise BrokenError(f"{under_way} transfers under way, and nothing has come for {_PATIENCE} s")
            for key, _ in ready:
                exchange, pair = key.data
                if exchange.read():
                    continue
                selector.unregister(exchange.socket)
                pair.unfinished -= 1
                if not pair.unfinished:
                    latencies.append(_seconds(pair))
                    under_way -= 1
                    under_way += next(coming, 0)
    return latencies


def _begun(target: Target, count: int, selector: selectors.BaseSelector) -> Iterator[int]:
    """Begin another pair for each item that is taken from this iterator."""
    for number in range(count):
        body, began = f"{number:x>{SIZE}}".encode(), time.perf_counter()
        upload = _Exchange("PUT", target.upload_url(f"n{number}"), body)
        download = _Exchange("GET", target.download_url(f"n{number}"))
        pair = _Pair(body, began, download)
        for exchange in (upload, download):
            selector.register(exchange.socket, selectors.EVENT_READ, (exchange, pair))
        yield 1


def _seconds(pair: _Pair) -> float:
    if pair.body not in pair.download.answer:
        raise BrokenError(f"a download is not whole: {pair.download.answer[:200]!r}")
    return time.perf_counter() - pair.began


def first_byte(target: Target, count: int) -> Figures:
    """Measure the time from before a downloader connects to the first byte of its body, one transfer after another.

    The upload has waited 20 ms by then, which is usually longer than its claim takes. If the claim takes longer, the
    figure gets worse.
    """
    target.begin()
    latencies, ends = [], []
    for number in range(count):
        upload = _Exchange("PUT", target.upload_url(f"f{number}"), b"x" * SIZE)
        time.sleep(0.02)
        began = time.perf_counter()
        download = _Exchange("GET", target.download_url(f"f{number}"))
        while not download.body_has_begun():
            if not download.read():
                raise BrokenError("a download without a body")
        latencies.append(time.perf_counter() - began)
        for exchange in (download, upload):
            while exchange.read():
                pass
        ends.append(time.perf_counter() - began)
    p50, p99 = percentiles(latencies)
    return {
        "p50 ms": p50,
        "p99 ms": p99,
        "longest ms": max(latencies) * 1000,
        "longest until done ms": max(ends) * 1000,
    }
