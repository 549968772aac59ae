"""A Redis and its replica, watched by three sentinels, all reached through proxies that a test can make fail."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import redis

from tests.support.ports import free_port
from tests.support.proxy import Proxy
from tests.support.redis import RedisServer
from tests.support.wait import wait_until

_SERVICE = "main"


class Watched:
    """Two Redis servers behind proxies, and the sentinels, whose failover takes two or three seconds."""

    def __init__(self, servers: list[RedisServer], proxies: list[Proxy], sentinels: list[int]) -> None:
        self.servers = servers
        self.proxies = proxies
        self.url = "redis+sentinel://" + ",".join(f"127.0.0.1:{port}" for port in sentinels) + f"/{_SERVICE}/0"
        self._sentinels = sentinels

    def master(self) -> int:
        """Return the index of the server that the first sentinel calls the master."""
        with redis.Redis(port=self._sentinels[0]) as client:
            run: Any = client.execute_command
            _, port = run("SENTINEL", "GET-MASTER-ADDR-BY-NAME", _SERVICE)
        return [proxy.port for proxy in self.proxies].index(int(port))

    def is_watched(self) -> bool:
        """Return whether each sentinel knows the replica and the other sentinels, so that a failover can begin."""
        for port in self._sentinels:
            with redis.Redis(port=port) as client:
                try:
                    state = client.sentinel_master(_SERVICE)
                except redis.RedisError:
                    return False
            if (int(state["num-slaves"]), int(state["num-other-sentinels"])) != (1, len(self._sentinels) - 1):
                return False
        return True


@contextlib.contextmanager
def sentinels(program: Path, folder: Path) -> Iterator[Watched]:
    """Run a master and a replica, each behind a proxy that it announces as its address, and three sentinels."""
    with contextlib.ExitStack() as stack:
        proxies = [stack.enter_context(contextlib.closing(Proxy(0))) for _ in range(2)]
        servers: list[RedisServer] = []
        for proxy in proxies:
            follow = ["--replicaof", f"127.0.0.1 {proxies[0].port}"] if servers else []
            announce = ["--replica-announce-ip", "127.0.0.1", "--replica-announce-port", str(proxy.port)]
            server = RedisServer(program, *announce, "--repl-diskless-sync-delay", "0", *follow)
            servers.append(stack.enter_context(server))
            proxy.target = server.port
        with servers[1].client() as client:
            wait_until(lambda: client.info("replication")["master_link_status"] == "up", "the replica")
        ports = [free_port() for _ in range(3)]
        for port in ports:
            _watch(stack, program, folder, port, proxies[0].port)
        watched = Watched(servers, proxies, ports)
        wait_until(watched.is_watched, "the sentinels to know each other", timeout=60)
        yield watched


def _watch(stack: contextlib.ExitStack, program: Path, folder: Path, port: int, master: int) -> None:
    """Run one sentinel until the stack is closed."""
    config = folder / f"sentinel-{port}.conf"
    lines = [f"port {port}", "bind 127.0.0.1", f"dir {folder}", f"sentinel monitor {_SERVICE} 127.0.0.1 {master} 2"]
    lines += [f"sentinel down-after-milliseconds {_SERVICE} 1500", f"sentinel failover-timeout {_SERVICE} 6000"]
    config.write_text("\n".join(lines) + "\n")
    process = stack.enter_context(subprocess.Popen([program, config, "--sentinel"], stdout=subprocess.DEVNULL))
    stack.callback(process.kill)
