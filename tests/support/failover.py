"""A Redis and its replica, watched by one sentinel. A test kills the master, and the replica takes its place."""

import contextlib
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import redis

from tests.support.ports import free_port
from tests.support.redis import RedisServer
from tests.support.wait import wait_until

_SERVICE = "main"
#: Milliseconds for which a master may be silent before the sentinel replaces it.
_DOWN_AFTER = 1000


class Replicated:
    """Two Redis servers and a sentinel. `url` is what nodes get."""

    def __init__(self, servers: list[RedisServer], sentinel: int) -> None:
        self.url = f"redis+sentinel://127.0.0.1:{sentinel}/{_SERVICE}/0"
        self._servers = servers
        self._sentinel = sentinel

    def master(self) -> RedisServer:
        with redis.Redis(port=self._sentinel) as client:
            run: Any = client.execute_command
            _, port = run("SENTINEL", "GET-MASTER-ADDR-BY-NAME", _SERVICE)
        return next(server for server in self._servers if server.port == int(port))

    def is_watched(self) -> bool:
        """Return whether the sentinel knows the replica, so that a failover can begin."""
        with contextlib.suppress(redis.RedisError), redis.Redis(port=self._sentinel) as client:
            return int(client.sentinel_master(_SERVICE)["num-slaves"]) == 1
        return False

    def fail_over(self) -> None:
        """Kill the master. Return when the sentinel has put its replica in its place."""
        before = self.master()
        before.kill()
        wait_until(lambda: self.master() is not before, "the failover", timeout=60)


@contextlib.contextmanager
def replicated(program: Path) -> Iterator[Replicated]:
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="relay-sentinel-")))
        master = stack.enter_context(RedisServer(program, "--repl-diskless-sync-delay", "0"))
        replica = stack.enter_context(RedisServer(program, "--replicaof", f"127.0.0.1 {master.port}"))
        with replica.client() as client:
            wait_until(lambda: client.info("replication")["master_link_status"] == "up", "the replica")
        port = free_port()
        config = folder / "sentinel.conf"
        lines = [f"port {port}", "bind 127.0.0.1", f"dir {folder}"]
        lines += [f"sentinel monitor {_SERVICE} 127.0.0.1 {master.port} 1"]
        lines += [f"sentinel down-after-milliseconds {_SERVICE} {_DOWN_AFTER}"]
        config.write_text("\n".join([*lines, f"sentinel failover-timeout {_SERVICE} 6000", ""]))
        process = stack.enter_context(subprocess.Popen([program, config, "--sentinel"], stdout=subprocess.DEVNULL))
        stack.callback(process.kill)
        service = Replicated([master, replica], port)
        wait_until(service.is_watched, "the sentinel to know the replica", timeout=60)
        yield service
