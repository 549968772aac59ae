"""The targets that are measured: relay and piping-server, as real processes on this machine, with and without HAProxy.

Each runs with its default settings, including its log.
"""

import contextlib
import http.client
import itertools
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil
from redis import Redis

from tests.support.cluster import NodeProcess
from tests.support.haproxy import HAProxy
from tests.support.ports import free_port
from tests.support.redis import RedisServer, servers
from tests.support.wait import wait_until

#: The server with which relay is compared.
PEER = "piping-server"
#: Its implementation in Go, which is measured if the user has it.
GO_PEER = "go-piping-server"
#: The clusters behind HAProxy, and the server with which they are compared. `LOCAL` has both clients of a transfer on
#: one node, `SPREAD` the next client on the node with the fewest.
LOCAL, SPREAD, PEER_BEHIND = "relay, cluster", "relay, cluster, leastconn", f"{PEER} behind HAProxy"
#: Number of nodes of a cluster.
_CLUSTER = 3
#: A pinned version, so that figures of different days are of the same program.
PEER_PACKAGE = "piping-server@1.12.9"

#: What is measured behind HAProxy.
_BEHIND = ("one stream", "10 streams", "small transfers")

_numbers = itertools.count()


class BrokenError(Exception):
    """Raised if a target or a client failed, so that there is no figure. The run ends with this message."""


@dataclass
class _Server:
    """One server of a target, and the port on 127.0.0.1 at which it listens."""

    name: str
    port: int


@dataclass
class Target:
    """A running service that is measured."""

    name: str
    #: The base URLs of uploads and of downloads: the same node, or two nodes of one cluster.
    upload_base: str
    download_base: str
    #: The processes that serve clients.
    nodes: list[psutil.Process]
    #: Where they listen.
    servers: list[_Server]
    #: A function that starts one more such process, ends it, and returns how long it took to be ready, in seconds.
    start: Callable[[], float]
    #: The load balancer in front of them, if there is one.
    balancer: psutil.Process | None = None
    #: The process of the target's Redis, and a client of it.
    redis: psutil.Process | None = None
    ask: Redis | None = None
    _prefix: str = field(default="", init=False)

    def begin(self) -> None:
        """Choose a fresh space of names, before each run. For relay that is a new token, so that no token expires."""
        self._prefix = f"/bench-{next(_numbers)}"
        if self.name not in (PEER, PEER_BEHIND, GO_PEER):
            self._prefix = "/" + httpx.post(self.upload_base + "/token").raise_for_status().text.strip()

    def upload_url(self, name: str) -> str:
        return f"{self.upload_base}{self._prefix}/{name}"

    def download_url(self, name: str) -> str:
        return f"{self.download_base}{self._prefix}/{name}"

    def cpu_seconds(self) -> float:
        """Return the user and system time that all its processes have used so far, in seconds: those of the nodes, of
        Redis and of the balancer."""
        others = [process for process in (self.redis, self.balancer) if process]
        times = [process.cpu_times() for process in [*self.nodes, *others]]
        return sum(time.user + time.system for time in times)

    def rss(self) -> int:
        """Return the resident memory of its nodes, in bytes."""
        return sum(int(process.memory_info().rss) for process in self.nodes)

    def redis_connections(self) -> int:
        """Return how many connections the nodes have to Redis. They are recognized because nodes name theirs."""
        return sum(bool(connection["name"]) for connection in self.ask.client_list()) if self.ask else 0

    def redis_bytes(self) -> int:
        """Return the memory that Redis uses, in bytes."""
        if self.ask is None:
            return 0
        memory: Any = self.ask.info("memory")
        return int(memory["used_memory"])


@dataclass(frozen=True)
class Kind:
    """A kind of target, of which fresh instances can be started."""

    name: str
    running: Callable[[], contextlib.AbstractContextManager[Target]]
    #: The only measures that it is for; empty means all.
    measures: tuple[str, ...] = ()

    def has(self, measure: str) -> bool:
        """Return whether the measure is for this kind."""
        return not self.measures or measure in self.measures


@contextlib.contextmanager
def kinds(go_peer: Path | None = None) -> Iterator[list[Kind]]:
    """Yield all kinds that can be measured on this machine. Print a line if the peer cannot.

    `go_peer`: the program of the peer in Go, or the folder of its source.
    """
    shapes = [
        Kind("relay, two nodes", partial(_relay, "relay, two nodes", nodes=2)),
        Kind("relay, one node", partial(_relay, "relay, one node", nodes=1)),
        Kind("relay, embedded", partial(_relay, "relay, embedded", nodes=1, embedded=True)),
    ]
    with tempfile.TemporaryDirectory(prefix="relay-bench-") as folder:
        if shutil.which("haproxy"):
            behind = partial(_behind, folder=Path(folder))
            shapes += [
                Kind(LOCAL, partial(behind, LOCAL, partial(_relay, LOCAL, nodes=_CLUSTER)), _BEHIND),
                Kind(SPREAD, partial(behind, SPREAD, partial(_relay, SPREAD, nodes=_CLUSTER), "leastconn"), _BEHIND),
            ]
        else:
            print("nothing behind HAProxy is measured: no haproxy on PATH", flush=True)
        if problem := _install(folder):
            print(f"{PEER} is not measured, so there are no ratios: {problem}", flush=True)
        else:
            program = Path(folder, "node_modules/.bin/piping-server")
            peer = partial(_piping_server, PEER, [program, "--host", "127.0.0.1", "--http-port"])
            shapes.append(Kind(PEER, peer))
            if shutil.which("haproxy"):
                shapes.append(Kind(PEER_BEHIND, partial(behind, PEER_BEHIND, peer), _BEHIND))
        if go_peer is not None:
            program = _built(go_peer, Path(folder)) if go_peer.is_dir() else go_peer.resolve()
            shapes.append(Kind(GO_PEER, partial(_piping_server, GO_PEER, [program, "--http-port"])))
        yield shapes


def _built(source: Path, folder: Path) -> Path:
    """Build the peer in Go from its source, and return its program."""
    program = folder / GO_PEER
    try:
        subprocess.run(
            ["go", "build", "-o", program, "./main"],
            cwd=source,
            check=True,
            capture_output=True,
            text=True,
            timeout=300,
        )
    except FileNotFoundError:
        raise BrokenError(f"no go on PATH to build {GO_PEER} with") from None
    except subprocess.CalledProcessError as error:
        said: str = error.stderr.strip()
        raise BrokenError(f"go build failed in {source}: {said.splitlines()[0] if said else 'no message'}") from None
    except subprocess.TimeoutExpired:
        raise BrokenError(f"go build in {source} took more than 300 s") from None
    return program


def _install(folder: str) -> str:
    """Install the peer in the folder. Return why that failed, or an empty string."""
    if not shutil.which("npm"):
        return "no npm on PATH"
    command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", folder, PEER_PACKAGE]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    except subprocess.CalledProcessError as error:
        said: str = error.stderr.strip()
        return f"npm install failed: {said.splitlines()[0] if said else 'no message'}"
    except subprocess.TimeoutExpired:
        return "npm install took more than 120 s"
    return ""


@contextlib.contextmanager
def _relay(name: str, *, nodes: int, embedded: bool = False) -> Iterator[Target]:
    """Start `nodes` nodes over a Redis of their own, or one node on the embedded store."""
    with contextlib.ExitStack() as stack:
        server = None if embedded else stack.enter_context(_redis())

        @contextlib.contextmanager
        def node(number: int) -> Iterator[NodeProcess]:
            one = NodeProcess(f"bench-{number}", server.url if server else "")
            try:
                yield one
            finally:
                one.stop()

        def start() -> float:
            began = time.perf_counter()
            with node(nodes) as one:
                wait_until(lambda: _answers(one.url + "/readyz"), "a node to be ready")
                return time.perf_counter() - began

        running = [stack.enter_context(node(number)) for number in range(nodes)]
        for one in running:
            one.wait_ready()
        yield Target(
            name,
            running[0].url,
            running[-1].url,
            [psutil.Process(one.process.pid) for one in running],
            [_Server(one.name, one.port) for one in running],
            start,
            redis=psutil.Process(server.process.pid) if server else _own_redis(running[0]),
            ask=stack.enter_context(server.client()) if server else None,
        )


def _own_redis(node: NodeProcess) -> psutil.Process | None:
    """Return the redis-server that is a child of the node, if it has one."""
    return next(iter(psutil.Process(node.process.pid).children()), None)


@contextlib.contextmanager
def _behind(
    name: str, running: Callable[[], contextlib.AbstractContextManager[Target]], balance: str = "", *, folder: Path
) -> Iterator[Target]:
    """Start a target, and HAProxy with the configuration of deploy/ in front of it. `balance` is RELAY_BALANCE."""
    with running() as target, tempfile.TemporaryDirectory(dir=folder) as files:
        ready = "/version" if target.name == PEER else HAProxy.ready
        with HAProxy(target.servers, Path(files), balance=balance, ready=ready) as balancer:
            yield replace(
                target,
                name=name,
                upload_base=balancer.url,
                download_base=balancer.url,
                balancer=psutil.Process(balancer.process.pid),
            )


@contextlib.contextmanager
def _redis() -> Iterator[RedisServer]:
    """Start the newest Redis on this machine."""
    if not (found := servers()):
        raise BrokenError("no redis-server on PATH")
    server = RedisServer(found[max(found)])
    try:
        yield server
    finally:
        server.stop()


@contextlib.contextmanager
def _piping_server(name: str, command: list[str | Path]) -> Iterator[Target]:
    """Start a peer, which is one process. Its port follows the command."""

    @contextlib.contextmanager
    def running() -> Iterator[tuple[str, int]]:
        port = free_port()
        base = f"http://127.0.0.1:{port}"
        with subprocess.Popen([*command, str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            try:
                wait_until(lambda: _answers(base + "/version"), f"{name} to answer")
                yield base, process.pid
            finally:
                process.kill()

    def start() -> float:
        began = time.perf_counter()
        with running():
            return time.perf_counter() - began

    with running() as (base, pid):
        server = _Server(name, urlsplit(base).port or 0)
        yield Target(name, base, base, [psutil.Process(pid)], [server], start)


def _answers(url: str) -> bool:
    """Return whether the URL answers 200. `http.client` makes the check cost almost nothing."""
    parts = urlsplit(url)
    with contextlib.suppress(OSError), contextlib.closing(http.client.HTTPConnection(parts.netloc, timeout=5)) as asked:
        asked.request("GET", parts.path)
        return asked.getresponse().status == http.HTTPStatus.OK
    return False
