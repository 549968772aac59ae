"""What a target costs before any byte flows: uploads that wait, and the start of a node."""

import resource
import selectors
import socket
import time
from urllib.parse import urlsplit

from tests.bench.figures import KIB, Figures, settled
from tests.bench.targets import BrokenError, Target
from tests.support.crowd import Selection, crowd, request
from tests.support.wait import wait_until

#: Names of one token that wait.
_NAMES = 500


def waiting(target: Target, count: int, seconds: float) -> Figures:
    """Uploads that wait for their downloaders: what it takes to begin them, what they hold, and what it takes to wait.

    `waiting, % of a core` is over that many `seconds`; relay looks after each upload every 30.
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
    """Fails where one of the waiting has been turned away."""
    selection = Selection(clients, selectors.EVENT_READ)
    try:
        for _, client in selection.ready(0):
            if not (said := client.recv(200, socket.MSG_PEEK)).startswith(b"HTTP/1.1 200"):
                raise BrokenError(f"a waiting upload was answered {said!r}")
    finally:
        selection.close()


def start(target: Target) -> Figures:
    """Seconds from the start of a process like the target's, its imports included, until it is ready to serve."""
    return {"s to ready": target.start()}
