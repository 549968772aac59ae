"""Measures of a target's cost before any byte flows: waiting uploads, and the start of a node."""

import resource
import selectors
import socket
import time
from urllib.parse import urlsplit

from tests.bench.figures import KIB, Figures, settled
from tests.bench.targets import BrokenError, Target
from tests.support.crowd import Selection, crowd, request
from tests.support.wait import wait_until

#: Number of names of one token that wait.
_NAMES = 500


def waiting(target: Target, count: int, seconds: float) -> Figures:
    """Measure uploads that wait for their downloaders: the cost to begin them, the memory they hold, and the cost to
    wait.

    `waiting, % of a core` is measured over `seconds`. relay checks each upload every 30 s.
    """
    count = min(count, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 200)
    at_rest, in_redis, cpu = target.rss(), target.redis_bytes(), target.cpu_seconds()
    heads: list[bytes] = []
    for number in range(count):
        if number % _NAMES == 0:
            target.begin()
        heads.append(request("PUT", urlsplit(target.upload_url(f"w{number}")).path, Content_Length=5))
    with crowd(urlsplit(target.upload_base).port or 0, heads) as clients:
        wait_until(lambda: settled(target), "the uploads to be taken", timeout=120)
        _check(clients)
        taken = target.cpu_seconds()
        figures: Figures = {
            "uploads": count,
            "node KiB each": (target.rss() - at_rest) / count / KIB,
            "Redis KiB each": (target.redis_bytes() - in_redis) / count / KIB,
            "Redis connections": target.redis_connections(),
            "to begin, CPU ms each": (taken - cpu) / count * 1000,
        }
        time.sleep(seconds)
        figures["waiting, % of a core"] = (target.cpu_seconds() - taken) / seconds * 100
        _check(clients)
    wait_until(lambda: settled(target), "the uploads to be given up", timeout=120)
    return figures


def _check(clients: list[socket.socket]) -> None:
    """Raise BrokenError if one of the waiting uploads has been refused."""
    selection = Selection(clients, selectors.EVENT_READ)
    try:
        for _, client in selection.ready(0):
            if not (said := client.recv(200, socket.MSG_PEEK)).startswith(b"HTTP/1.1 200"):
                raise BrokenError(f"a waiting upload was answered {said!r}")
    finally:
        selection.close()


def start(target: Target) -> Figures:
    """Measure the time from the start of a process like the target's until it is ready, including its imports."""
    return {"s to ready": target.start()}
