"""Fixtures: two nodes with low limits, whose links to Redis the tests can break, and checks after every test."""

import contextlib
import os
import secrets
import signal
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import httpx
import psutil
import pytest

from tests.faults.transfers import Watched
from tests.support.cluster import Cluster, Curl, NodeProcess, assert_no_traceback, curl, id_of
from tests.support.proxy import Proxy
from tests.support.redis import RedisServer, newest
from tests.support.wait import wait_until

#: Low limits keep the tests short. They are high enough that a busy machine does not exceed them by itself.
#: An upload ends at once when its downloader has left, because none of these clients comes back.
LIMITS = {
    "rejoin_wait": 0,
    "heartbeat": 0.5,
    "node_death": 4,
    "redis_patience": 1,
    "transfer_patience": 6,
    "drain_delay": 0,
    "drain_wait": 0,
}

#: A function that starts a watched transfer of the name `x` on the given nodes, or on nodes 0 and 1.
Start = Callable[..., Watched]


class LinkedNode(NodeProcess):
    """A node that reaches Redis through a proxy of its own, its link."""

    def __init__(self, name: str, server: RedisServer, settings: Mapping[str, object]) -> None:
        self.link = Proxy(server.port)
        super().__init__(name, self.link.url, settings)
        self._at_rest = (0, 0)

    def rest(self) -> None:
        """Record what the node holds now as what it may hold when it serves no client."""
        self._at_rest = self.holds()

    def wait_at_rest(self) -> None:
        """Wait until the node holds no more descriptors and threads than at rest, or fail and list what it holds."""
        try:
            wait_until(lambda: self.holds() <= self._at_rest, "rest", timeout=10)
        except AssertionError:
            process, folder = psutil.Process(self.process.pid), Path(f"/proc/{self.process.pid}/fd")
            links = [f"{link.name} {link.readlink()}" for link in folder.iterdir()]
            held = [f"at rest {self._at_rest}, now {self.holds()}", *links, *map(str, process.net_connections("all"))]
            raise AssertionError(f"{self.name} holds more than at rest:\n" + "\n".join(held)) from None

    def holds(self) -> tuple[int, int]:
        """Return the numbers of descriptors and of threads. Connections to Redis do not count: they are reused."""
        process = psutil.Process(self.process.pid)
        connections = process.net_connections("tcp")
        to_redis = sum(bool(each.raddr) and each.raddr.port == self.link.port for each in connections)
        return process.num_fds() - to_redis, process.num_threads()

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)


class Faulty(Cluster):
    """A cluster with its own Redis, whose links to Redis the tests can break."""

    nodes: list[LinkedNode]  # type: ignore[assignment]

    def __init__(self, server: RedisServer, prefix: str, nodes: list[LinkedNode]) -> None:
        super().__init__(list(nodes), server.client(), prefix)
        self.server = server
        #: The tokens of the current test.
        self.tokens: list[str] = []
        #: Whether the current test leaves streams that only their TTL deletes, because no node is left to do it.
        self.may_linger = False
        for node in nodes:
            node.rest()

    def __getitem__(self, index: int) -> LinkedNode:
        return self.nodes[index]

    def heal(self) -> None:
        for node in self.nodes:
            node.link.heal()

    def left_over(self) -> list[str]:
        """Return the keys of the test's transfers, and all keys without a TTL.

        Keys of earlier tests' transfers may remain until they expire.
        """
        ours = [key for kind in ("transfer", "chunks", "acks") for key in self.keys_of_test(kind)]
        return ours + [key for key in super().left_over() if self.ttl(key) < 0]

    def keys_of_test(self, kind: str) -> list[str]:
        return [key for key in self.keys(kind) if any(id_of(token) in key for token in self.tokens)]

    def ttl(self, key: str) -> float:
        """Return the TTL of the key, in seconds."""
        assert self.redis is not None
        return int(self.redis.pttl(key)) / 1000

    def is_idle(self) -> bool:
        """Return whether all nodes report in their heartbeats that they serve no client."""
        assert self.redis is not None
        told = [self.redis.hmget(f"{self.prefix}:node:{node.id}", "waiting", "streaming") for node in self.nodes]
        return all(counts == [b"0", b"0"] for counts in told)


@pytest.fixture(scope="session")
def faulty_redis() -> Iterator[RedisServer]:
    """Start a Redis that these tests may stop, fill and roll back."""
    with RedisServer(newest("failures of Redis were not tested")) as server:
        yield server


@pytest.fixture(scope="session")
def two_nodes(faulty_redis: RedisServer) -> Iterator[Faulty]:
    prefix = f"faults-{secrets.token_hex(4)}"
    nodes = [LinkedNode(name, faulty_redis, LIMITS | {"prefix": prefix}) for name in ("a", "b")]
    cluster = Faulty(faulty_redis, prefix, nodes)
    yield cluster
    cluster.stop()
    for node in nodes:
        node.link.close()
    assert_no_traceback(cluster.logs())


@pytest.fixture
def cluster(two_nodes: Faulty) -> Iterator[Faulty]:
    """Yield the two nodes when they are ready, and heal their links afterwards."""
    for node in two_nodes.nodes:
        node.wait_ready()
    yield two_nodes
    two_nodes.heal()


@pytest.fixture
def victim(cluster: Faulty) -> Iterator[LinkedNode]:
    """Start a third node for the test to kill."""
    yield from joined(cluster, "victim")


def joined(cluster: Faulty, name: str, **settings: object) -> Iterator[LinkedNode]:
    """Add a node to the cluster until the test ends."""
    node = LinkedNode(name, cluster.server, {**LIMITS, "prefix": cluster.prefix, **settings})
    node.wait_ready()
    yield node
    node.kill()
    node.link.close()
    assert_no_traceback(node.log())


@pytest.fixture
def token(cluster: Faulty) -> str:
    cluster.tokens.append(cluster.token())
    return cluster.tokens[-1]


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a file with 8 MiB of random bytes."""
    path = tmp_path_factory.mktemp("data") / "source"
    path.write_bytes(os.urandom(8 * 1024 * 1024))
    return path


@pytest.fixture
def start(cluster: Faulty, token: str, tmp_path: Path) -> Iterator[Start]:
    """Yield a function that starts watched transfers of the name `x`. Afterwards, check that each told the truth."""
    started: list[Watched] = []

    def start(up: NodeProcess | None = None, down: NodeProcess | None = None, **options: object) -> Watched:
        folder = tmp_path / str(len(started))
        folder.mkdir()
        urls = (f"{node.url}/{token}/x" for node in (up or cluster[0], down or cluster[1]))
        started.append(Watched(folder, *urls, **options))  # type: ignore[arg-type]
        return started[-1]

    yield start
    for transfer in started:
        if transfer.is_over:
            transfer.finish()
        transfer.kill()


@pytest.fixture(autouse=True)
def always(request: pytest.FixtureRequest) -> Iterator[None]:
    """Check after every test that uses the two nodes that they serve no client, hold no more descriptors and threads
    than at rest, have left no key behind, and that the names of the test are free."""
    if "two_nodes" not in request.fixturenames:  # the test has its own cluster, or none
        yield
        return
    cluster: Faulty = request.getfixturevalue("two_nodes")
    cluster.tokens, cluster.may_linger = [], False
    yield
    for node in cluster.nodes:
        node.wait_ready()
    wait_until(cluster.is_idle, "the nodes to serve nobody", timeout=10)
    for node in cluster.nodes:
        node.wait_at_rest()
    if cluster.may_linger:
        assert all(0 < cluster.ttl(key) <= 30 for key in cluster.left_over())
    else:
        cluster.wait_clean(10)
    for token in cluster.tokens:
        assert_free(cluster, token, "x")
    assert_no_traceback(cluster.logs())


def assert_free(cluster: Faulty, token: str, name: str) -> None:
    """Check that the name can be used at once, unless its token was lost together with the data in Redis."""
    if httpx.get(cluster.url(0, token)).status_code == 401:
        return
    with Curl("-T", "-", cluster.url(0, token, name), pipe=True) as upload:
        upload.write_all(b"again")
        assert curl(cluster.url(1, token, name)).stdout == b"again"
        assert upload.finish() == (0, b"delivered 5 bytes\n")


def connect(cluster: Faulty, node: int, request: str) -> socket.socket:
    """Send a request to a node, and return the connection."""
    connection = socket.create_connection(("127.0.0.1", cluster[node].port), timeout=20)
    connection.sendall(request.encode())
    return connection


def fill(connection: socket.socket) -> None:
    """Send until the kernel's buffers are full."""
    connection.settimeout(0.5)
    with contextlib.suppress(TimeoutError):
        while True:
            connection.sendall(bytes(1024 * 1024))
