"""What is measured: relay in three shapes, and piping-server, each as real processes on this machine."""

import contextlib
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.support.cluster import NodeProcess
from tests.support.ports import free_port
from tests.support.redis import RedisServer, servers
from tests.support.wait import wait_until

#: The peer, pinned so that figures of different days are of the same program.
PIPING_SERVER = "piping-server@1.12.9"


@dataclass
class Target:
    """A service under measurement."""

    name: str
    #: Where uploads and downloads go: the same place, or two nodes of one cluster.
    upload_base: str
    download_base: str
    #: Every process that does the service's work, Redis among them.
    pids: list[int]
    #: Those of them that hold clients.
    node_pids: list[int] = field(default_factory=list)
    redis: RedisServer | None = None
    #: Starts one process like the target's and ends it; answers the seconds from its start to its first answer.
    start: Callable[[], float] = lambda: 0.0
    _prefix: str = ""

    def begin(self) -> None:
        """Before each run: a fresh space of names, so that no token runs out."""
        self._prefix = ""
        if self.name.startswith("relay"):
            self._prefix = "/" + httpx.post(self.upload_base + "/token").raise_for_status().text.strip()

    def upload_url(self, name: str) -> str:
        return f"{self.upload_base}{self._prefix}/{name}"

    def download_url(self, name: str) -> str:
        return f"{self.download_base}{self._prefix}/{name}"

    def cpu_seconds(self) -> float:
        """User and system time that its processes have used so far."""
        times = [psutil.Process(pid).cpu_times() for pid in self.pids]
        return sum(time.user + time.system for time in times)

    def rss(self) -> int:
        """Resident memory in bytes of the processes that hold clients."""
        return sum(int(psutil.Process(pid).memory_info().rss) for pid in self.node_pids)

    def redis_connections(self) -> int:
        """Connections that the nodes have to Redis."""
        if self.redis is None:
            return 0
        with self.redis.client() as client:
            return sum(bool(connection["name"]) for connection in client.client_list())

    def redis_bytes(self) -> int:
        """Memory that Redis uses, in bytes."""
        if self.redis is None:
            return 0
        with self.redis.client() as client:
            memory: Any = client.info("memory")
            return int(memory["used_memory"])


@contextlib.contextmanager
def relay(name: str, *, nodes: int, embedded: bool = False) -> Iterator[Target]:
    """`nodes` nodes over a Redis of their own, or one on the embedded store."""
    found = servers()
    server = None if embedded else RedisServer(found[max(found)])

    def node(number: int) -> NodeProcess:
        return NodeProcess(f"bench-{number}", server.url if server else "", {"log_level": "warning"})

    def start() -> float:
        began = time.perf_counter()
        one = node(nodes)
        try:
            one.wait_ready()
            return time.perf_counter() - began
        finally:
            one.stop()

    running = [node(number) for number in range(nodes)]
    try:
        for one in running:
            one.wait_ready()
        pids = [one.process.pid for one in running]
        yield Target(
            name,
            running[0].url,
            running[-1].url,
            [*pids, *([server.process.pid] if server else [])],
            node_pids=pids,
            redis=server,
            start=start,
        )
    finally:
        for one in running:
            one.stop()
        if server:
            server.stop()


@contextlib.contextmanager
def piping_server() -> Iterator[Target | None]:
    """piping-server in one process, installed into a temporary folder; None where there is no npm."""
    if not shutil.which("npm"):
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        quiet = ["--no-audit", "--no-fund", "--silent"]
        subprocess.run(["npm", "install", *quiet, "--prefix", folder, PIPING_SERVER], check=True)
        program = str(Path(folder, "node_modules/.bin/piping-server"))

        @contextlib.contextmanager
        def running() -> Iterator[tuple[str, int]]:
            port = free_port()
            command = [program, "--http-port", str(port)]
            with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
                base = f"http://127.0.0.1:{port}"
                try:
                    wait_until(lambda: _answers(base + "/version"), "piping-server to answer")
                    yield base, process.pid
                finally:
                    process.terminate()

        def start() -> float:
            began = time.perf_counter()
            with running():
                return time.perf_counter() - began

        with running() as (base, pid):
            yield Target("piping-server", base, base, [pid], node_pids=[pid], start=start)


def _answers(url: str) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(url).is_success
    return False
