"""A Redis hangs, dies or cannot be reached in the middle of streams, and another one takes its place, or none does."""

import contextlib
import os
import secrets
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from relay.cluster.node import RECHECK
from tests.faults.transfers import Watched
from tests.support import sentinel
from tests.support.cluster import Cluster, NodeProcess, assert_no_traceback, id_of
from tests.support.proxy import Proxy
from tests.support.redis import RedisServer, cluster_with_replicas, newest
from tests.support.wait import wait_until

MIB = 1024 * 1024
#: A function that starts a watched transfer.
Start = Callable[..., Watched]
#: Seconds after which both sides are told, if Redis stays away for a running transfer: RELAY_TRANSFER_PATIENCE is 10.
TOLD = 16


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(os.urandom(8 * MIB))
    return path


@contextlib.contextmanager
def nodes(url: str) -> Iterator[Cluster]:
    """Run two nodes over the Redis of this URL."""
    settings = {"prefix": f"failover-{secrets.token_hex(4)}"}
    cluster = Cluster([NodeProcess(name, url, settings) for name in ("a", "b")], None, settings["prefix"])
    try:
        yield cluster
    finally:
        cluster.stop()
    assert_no_traceback(cluster.logs())


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Yield a function that starts an upload of a file at the first node, and its download at the second."""
    started: list[Watched] = []

    def start(cluster: Cluster, token: str, name: str, source: Path, rate: str = "1G") -> Watched:
        folder = tmp_path / str(len(started))
        folder.mkdir()
        urls = (cluster.url(node, token, name) for node in (0, 1))
        started.append(Watched(folder, *urls, source=source, rate=rate))
        return started[-1]

    yield start
    for each in started:
        each.kill()


def leave_idle_connections(cluster: Cluster, token: str, start: Start, folder: Path) -> None:
    """Run some transfers side by side. The connections of their streams stay open, and are used again."""
    small = folder / "small"
    small.write_bytes(os.urandom(MIB // 2))
    started = [start(cluster, token, f"before-{number}", small, rate="500k") for number in range(12)]
    for each in started:
        each.assert_complete()


@contextlib.contextmanager
def away(server: RedisServer, proxy: Proxy, how: str) -> Iterator[None]:
    """Let a server hang, die, or be cut off from everybody without a reset. A dead one stays dead."""
    if how == "is killed":
        server.kill()
        yield
    elif how == "is cut off":
        with proxy.silent():
            yield
    else:
        os.kill(server.process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(server.process.pid, signal.SIGCONT)


HOW = pytest.mark.parametrize("how", ["hangs", "is killed", "is cut off"])


# Sentinel.


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[sentinel.Watched]:
    with sentinel.sentinels(newest("failovers of Sentinel were not tested"), tmp_path) as watched:
        yield watched


@HOW
def test_sentinel_replaces_the_master(
    watched: sentinel.Watched, start: Start, tmp_path: Path, source: Path, how: str
) -> None:
    """The stream goes on, its token is kept, and new transfers begin, at first while the old master stays away, then
    while it is back and takes itself for the master until the sentinels correct it."""
    with nodes(watched.url) as cluster:
        token = cluster.token()
        leave_idle_connections(cluster, token, start, tmp_path)
        running = start(cluster, token, "x", source, rate="700k")
        running.wait_arrived(MIB)
        with away(watched.servers[0], watched.proxies[0], how):
            begun, had = time.monotonic(), running.arrived()
            wait_until(lambda: watched.master() == 1, "the failover")
            over = time.monotonic()
            wait_until(lambda: running.arrived() > had + 256 * 1024 or running.is_over, "the stream to go on")
            print(f"failover: {over - begun:.1f} s, the stream goes on {time.monotonic() - over:.1f} s after it")
            start(cluster, token, "y", source).assert_complete()
        start(cluster, token, "z", source).assert_complete()
        running.assert_complete()


# Redis Cluster.


@pytest.fixture
def proxies() -> Iterator[list[Proxy]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(contextlib.closing(Proxy(0))) for _ in range(6)]


@pytest.fixture
def servers(proxies: list[Proxy]) -> Iterator[list[RedisServer]]:
    program = newest("failovers of a Redis Cluster were not tested")
    with cluster_with_replicas(program, proxies=proxies) as servers:
        yield servers


@pytest.fixture
def cluster(servers: list[RedisServer], proxies: list[Proxy]) -> Iterator[Cluster]:
    url = "redis+cluster://" + ",".join(f"127.0.0.1:{proxy.port}" for proxy in proxies)
    with nodes(url) as cluster:
        yield cluster


def home(proxies: list[Proxy], key: str) -> int:
    """Return the index of the master that has the slot of a key."""
    client: Any = redis.RedisCluster(host="127.0.0.1", port=proxies[0].port)
    port = client.get_node_from_key(key).port
    client.close()
    return [proxy.port for proxy in proxies].index(port)


def token_at(cluster: Cluster, proxies: list[Proxy], is_there: Callable[[int], bool]) -> str:
    """Return a token whose master has an index that `is_there` accepts."""
    while True:
        token = cluster.token()
        if is_there(home(proxies, f"{{{id_of(token)}}}")):
            return token


@pytest.mark.parametrize("how", ["hangs", "is killed"])
def test_a_cluster_replaces_a_master(
    cluster: Cluster,
    servers: list[RedisServer],
    proxies: list[Proxy],
    start: Start,
    source: Path,
    how: str,
) -> None:
    """The stream goes on, its token is kept, and new transfers begin, while the old master stays away."""
    token = cluster.token()
    running = start(cluster, token, "x", source, rate="1M")
    running.wait_arrived(MIB)
    master = home(proxies, f"{{{id_of(token)}}}")
    with away(servers[master], proxies[master], how):
        begun = time.monotonic()
        running.finish()
        print(f"the running stream ended after {time.monotonic() - begun:.1f} s: {running.status}")
        assert time.monotonic() - begun < 20
        start(cluster, token, "y", source).assert_complete()
        running.assert_complete()


def test_connections_that_a_firewall_forgot(
    cluster: Cluster, proxies: list[Proxy], start: Start, tmp_path: Path, source: Path
) -> None:
    """All open connections to all masters are dead without a reset, and new ones work."""
    token = cluster.token()
    leave_idle_connections(cluster, token, start, tmp_path)
    running = start(cluster, token, "x", source, rate="2M")
    running.wait_arrived(MIB)
    for proxy in proxies:
        proxy.forget()
    begun, had = time.monotonic(), running.arrived()
    wait_until(lambda: running.arrived() > had + 256 * 1024 or running.is_over, "the stream to go on")
    print(f"the stream goes on after {time.monotonic() - begun:.1f} s")
    running.assert_complete()
    start(cluster, token, "y", source).assert_complete()


@pytest.mark.parametrize("side", ["a", "b"], ids=["uploader's", "downloader's"])
def test_a_master_that_one_side_cannot_reach(
    cluster: Cluster, proxies: list[Proxy], start: Start, source: Path, side: str
) -> None:
    """Both sides are told, although only the other one's node can say in Redis that the transfer is over."""
    inboxes = {home(proxies, f"{cluster.prefix}:inbox:{node.id}") for node in cluster.nodes}
    token = token_at(cluster, proxies, lambda index: index not in inboxes)
    running = start(cluster, token, "x", source, rate="300k")
    running.wait_arrived(MIB)
    master = home(proxies, f"{{{id_of(token)}}}")
    begun, proxies[master].silences = time.monotonic(), side.encode()
    try:
        wait_until(lambda: running.is_over, "both sides to be told", timeout=30)
        print(f"both sides were told after {time.monotonic() - begun:.1f} s")
        assert time.monotonic() - begun < TOLD
        running.assert_broken(502, 503)
    finally:
        proxies[master].silences = b""


def test_a_master_that_the_nodes_cannot_reach(
    cluster: Cluster, proxies: list[Proxy], start: Start, tmp_path: Path, source: Path
) -> None:
    """The cluster finds nothing wrong with it, so it replaces nothing. Its transfers end for both sides.

    Those on the other masters go on, and new ones begin, although the inbox of the uploader's node is out of reach.
    When the master is reached again, it serves at once.
    """
    master = home(proxies, f"{cluster.prefix}:inbox:{cluster[0].id}")
    token = token_at(cluster, proxies, lambda index: index == master)
    other = token_at(cluster, proxies, lambda index: index != master)
    leave_idle_connections(cluster, token, start, tmp_path)
    doomed = start(cluster, token, "x", source, rate="300k")
    unharmed = start(cluster, other, "x", source, rate="600k")
    for each in (doomed, unharmed):
        each.wait_arrived(MIB)
    with proxies[master].silent():
        begun = time.monotonic()
        start(cluster, other, "y", source).assert_complete()
        # If its download comes first, and before its node knows that no wake-up arrives, it looks again after 30 s.
        assert time.monotonic() - begun < RECHECK + TOLD
        print(f"a new transfer elsewhere took {time.monotonic() - begun:.1f} s")
        wait_until(lambda: doomed.is_over, "both sides to be told", timeout=TOLD)
        print(f"both sides were told after {time.monotonic() - begun:.1f} s")
        doomed.assert_broken(503)
        unharmed.assert_complete()
    start(cluster, token, "z", source).assert_complete()
