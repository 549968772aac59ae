"""Nodes as real processes, and curl as a real client, for the tests."""

import contextlib
import functools
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import httpx
import psutil
import redis

from relay.access import Token
from tests.support.ports import free_port
from tests.support.redis import RedisServer
from tests.support.secrecy import Secrecy
from tests.support.wait import wait_until

#: What curl exits with if a node cuts it off: CURLE_RECV_ERROR. Behind a proxy it exits with 18, CURLE_PARTIAL_FILE.
CUT_OFF = 56


#: How many lines of a log are shown before its first traceback, and from there on.
_BEFORE, _FROM = 5, 50


def first_traceback(log: str) -> str:
    """Return the lines of a log around its first traceback; empty if it has none."""
    lines = log.splitlines()
    at = next((number for number, line in enumerate(lines) if "Traceback" in line), None)
    return "" if at is None else "\n".join(lines[max(0, at - _BEFORE) : at + _FROM])


def assert_no_traceback(log: str) -> None:
    """Fail if there is a traceback in the log of a node, and show the first one: it may be anywhere in a long log."""
    if found := first_traceback(log):
        raise AssertionError(f"{log.count('Traceback')} tracebacks, and this is the first:\n{found}")


def id_of(token: str) -> str:
    """Return the id of a token, which keys, logs and pages have."""
    return Token.parse(token.encode()).id


class NodeProcess:
    """One `relay serve` process."""

    def __init__(
        self,
        name: str,
        redis_url: str = "",
        settings: Mapping[str, object] | None = None,
        *,
        port: int = 0,
        own_session: bool = False,
    ) -> None:
        self.name = name
        self.redis_url = redis_url
        self.settings = settings
        self.port = port or free_port()
        scheme = "https" if (settings or {}).get("ssl_certfile") else "http"
        self.url = f"{scheme}://127.0.0.1:{self.port}"
        self._log = tempfile.NamedTemporaryFile(mode="w+", prefix=f"relay-{name}-", suffix=".log")  # noqa: SIM115
        self._final_log: str | None = None
        environment = {key: value for key, value in os.environ.items() if not key.startswith("RELAY_")}
        environment |= {"RELAY_REDIS_URL": redis_url, "RELAY_NODE": name, "RELAY_HOST": "127.0.0.1"}
        environment |= {"RELAY_LOG_FORMAT": "text"}
        environment |= {f"RELAY_{key.upper()}": str(value) for key, value in (settings or {}).items()}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "relay", "serve", "--port", str(self.port)],
            env=environment,
            stderr=self._log,
            start_new_session=own_session,
        )

    @functools.cached_property
    def id(self) -> str:
        """The node's id in Redis: its name, and a suffix that differs between processes of the same name."""
        return httpx.get(self.url + "/healthz").headers["relay-node"]

    def successor(self) -> "NodeProcess":
        """Start a node in the place of this one, which has ended: with its name, settings and port."""
        return NodeProcess(self.name, self.redis_url, self.settings, port=self.port)

    def wait_ready(self) -> None:
        wait_until(lambda: self.is_ready() or self.process.poll() is not None, f"{self.name} to be ready")
        assert self.process.poll() is None, self.log()

    def is_ready(self) -> bool:
        try:
            return httpx.get(self.url + "/readyz", verify=False).status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def log(self) -> str:
        return Path(self._log.name).read_text() if self._final_log is None else self._final_log

    def rss(self) -> int:
        """Return the resident memory, in bytes."""
        return int(psutil.Process(self.process.pid).memory_info().rss)

    def stop(self) -> int:
        """Stop the process cleanly but without a long drain, by a second SIGTERM, and return its exit status."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(timeout=0.2)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(timeout=30)
        self._final_log = self.log()
        self._log.close()
        return self.process.returncode

    def kill(self) -> None:
        """Kill the process, which leaves it no time to tell anybody."""
        self.process.kill()
        self.process.wait()
        self._final_log = self.log()
        self._log.close()


#: The clusters that run in this process.
RUNNING: "weakref.WeakSet[Cluster]" = weakref.WeakSet()


class Cluster:
    """Several nodes over one Redis, or a single node on the embedded store, with helpers to inspect them."""

    def __init__(self, nodes: list[NodeProcess], store: redis.Redis | None, prefix: str) -> None:
        self.nodes = nodes
        self.redis = store
        self.prefix = prefix
        self.secrecy = Secrecy(self)
        for node in nodes:
            node.wait_ready()
        RUNNING.add(self)

    def __getitem__(self, index: int) -> NodeProcess:
        return self.nodes[index % len(self.nodes)]

    def token(self) -> str:
        answer = httpx.post(self[0].url + "/token")
        assert answer.status_code == httpx.codes.OK, answer.text
        token = answer.text.strip()
        self.secrecy.tokens.append(token)
        return token

    def url(self, node: int, token: str, name: str = "") -> str:
        return f"{self[node].url}/{token}" + (f"/{name}" if name else "")

    def keys(self, kind: str = "*") -> Iterator[str]:
        assert self.redis is not None
        return (key.decode() for key in self.redis.scan_iter(f"{self.prefix}:{kind}:*", count=1000))

    def wait_state(self, token: str, state: str, count: int = 1) -> None:
        """Wait until at least `count` transfers of the token are in the state."""

        def states() -> int:
            answer = httpx.get(self.url(0, token), headers={"accept": "application/json"}).json()
            return sum(transfer["state"] == state for transfer in answer["transfers"])

        wait_until(lambda: states() >= count, f"{count} transfers to be {state}")

    def left_over(self) -> list[str]:
        """Return the keys of transfers and the keys without a TTL. After every test the list must be empty."""
        if self.redis is None:
            return []
        assert self.redis is not None
        of_transfers = [key for kind in ("transfer", "chunks", "acks") for key in self.keys(kind)]
        endless = [key.decode() for key in self.redis.scan_iter(f"{self.prefix}:*") if self.redis.ttl(key) == -1]
        return of_transfers + endless

    def wait_clean(self, timeout: float = 40) -> None:
        """Wait until no transfer has left a key, and every key has a TTL. The time is long enough for a dead node's.

        Name the keys that stay, and delete them, so that they fail one test and not each later one of this cluster.
        """
        try:
            wait_until(lambda: not self.left_over(), "no key to be left over", timeout)
        except AssertionError as error:
            if not (left := self.left_over()):
                raise
            assert self.redis is not None
            about = [f"{key} with a TTL of {self.redis.ttl(key)} s" for key in left]
            self.redis.delete(*left)
            raise AssertionError(f"left over after {timeout} s: " + ", ".join(about)) from error

    def put_into_inbox(self, node: int, entry: dict[bytes, bytes]) -> None:
        """Put a wake-up into the inbox of a node, as another node would. The inbox of an idle node does not exist."""
        assert self.redis is not None
        key = f"{self.prefix}:inbox:{self[node].id}"
        self.redis.xadd(key, entry)  # type: ignore[arg-type]
        self.redis.expire(key, 60)

    def checked(self) -> Iterator["Cluster"]:
        """Yield this cluster, for a fixture. After the test, check that no transfer has left a key behind."""
        yield self
        self.wait_clean()

    def logs(self) -> str:
        return "\n".join(node.log() for node in self.nodes)

    def stop(self) -> None:
        """Stop the nodes. Fail if one has ended otherwise, or if a secret is where it must not be."""
        RUNNING.discard(self)
        try:
            self.secrecy.check(pages=True)
        finally:
            statuses = [node.stop() for node in self.nodes]
        assert not any(statuses), self.logs()


@contextlib.contextmanager
def over_redis(server: RedisServer, names: Iterable[str], **settings: object) -> Iterator[Cluster]:
    """Run nodes of these names over one Redis, with a key prefix of their own and otherwise the same settings.

    Afterwards, check that they exited cleanly, logged no traceback, and left no key of a transfer and no endless key.
    """
    prefix = f"test-{secrets.token_hex(4)}"
    nodes = [NodeProcess(name, server.url, {"prefix": prefix, **settings}) for name in names]
    cluster = Cluster(nodes, server.client(), prefix)
    try:
        yield cluster
    finally:
        cluster.stop()
    assert_no_traceback(cluster.logs())
    assert not cluster.left_over()


@contextlib.contextmanager
def alone(name: str = "alone", /, **settings: object) -> Iterator[Cluster]:
    """Run one node on the embedded store. Afterwards, check that it exited cleanly and logged no traceback."""
    cluster = Cluster([NodeProcess(name, settings=settings)], None, "relay")
    try:
        yield cluster
    finally:
        cluster.stop()
    assert_no_traceback(cluster.logs())


def random_file(path: Path, size: int) -> Path:
    """Write `size` random bytes to the file."""
    path.write_bytes(os.urandom(size))
    return path


def curl(*arguments: str | Path, stdin: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    """Run curl until it exits. Never raise because of its exit status."""
    command = ["curl", "-sS", *map(str, arguments)]
    return subprocess.run(command, input=stdin, capture_output=True, timeout=300, check=False)


class Curl:
    """A curl process that runs in parallel with the test.

    It is a context manager, so that neither the process nor its pipes outlive the test.
    """

    def __init__(self, *arguments: str | Path, pipe: bool = False) -> None:
        command = ["curl", "-sS", *map(str, arguments)]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE if pipe else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def __enter__(self) -> "Curl":
        return self

    def __exit__(self, *exception: object) -> None:
        self.process.kill()
        self.close()
        self.process.communicate()

    def write(self, data: bytes) -> None:
        assert self.process.stdin
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def write_all(self, data: bytes) -> None:
        """Write the data and end the upload."""
        self.write(data)
        self.close()

    def close(self) -> None:
        """End the upload, if curl still runs."""
        if self.process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()
            self.process.stdin = None  # otherwise communicate() would flush it again

    def read(self, size: int) -> bytes:
        assert self.process.stdout
        return self.process.stdout.read(size)

    def finish(self) -> tuple[int, bytes]:
        """Wait until curl exits, and return its exit status and what it printed."""
        output, error = self.process.communicate(timeout=300)
        return self.process.returncode, output + error


def chars_read(curl: Curl) -> int:
    """Return how many bytes curl has read so far, which are mostly those of its file."""
    return int(psutil.Process(curl.process.pid).io_counters().read_chars)
