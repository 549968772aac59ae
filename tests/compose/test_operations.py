"""Upgrades, killed nodes and restarts of Redis while clients use the cluster."""

import itertools
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from tests.compose.deployment import URL, Deployment, answer, download, upload
from tests.support.cluster import Curl, curl, id_of, random_file
from tests.support.pages import FRONT, OPERATORS, shell_blocks
from tests.support.wait import wait_until


def test_the_readmes_lines_make_a_cluster_of_nothing_and_carry_a_file(deployment: Deployment) -> None:
    if deployment.balancer == "nginx":
        return  # the front page starts HAProxy
    deployment.down()
    (lines,) = shell_blocks(FRONT, "Run a cluster")
    shown = deployment.type_in(lines + "\nwait\n")
    sent, got = (deployment.folder / name for name in ("sample.bin", "received.bin"))
    assert got.read_bytes() == sent.read_bytes()
    assert f"delivered {sent.stat().st_size} bytes" in shown
    assert "relay:node:" in shown
    assert len(deployment.containers("relay")) == 5
    wait_until(lambda: len(deployment.nodes_answering(20)) == 5, "the balancer to have found all five nodes")


def test_the_operators_lines_make_a_cluster_that_only_those_with_a_secret_can_use(deployment: Deployment) -> None:
    """With secrets in `.env`, and one from a file. What is not set there stays as it is by default."""
    if deployment.balancer == "haproxy":
        return  # which balancer it is makes no difference, and the other test of this kind starts HAProxy
    deployment.down()
    (lines, *_) = shell_blocks(OPERATORS, "With Docker")
    secrets, file = deployment.folder / "deploy" / "secrets" / "tokens.toml", deployment.folder / ".env"
    try:
        secrets.write_text(deployment.compose("run", "--rm", "--no-deps", "-T", "relay", "relay", "secret", "alice"))
        deployment.environment["RELAY_TOKEN_SECRETS_FILE"] = "/run/secrets/tokens.toml"
        deployment.type_in(lines)
        assert [curl("-w", "%{http_code}", "-o", os.devnull, *request).stdout for request in _STRANGERS] == [b"401"] * 3
        status = curl("-u", f":{_value(file, 'RELAY_ADMIN_SECRET')}", f"{URL}/status").stdout
        assert b"nodes 3" in status
        given = set(deployment.compose("exec", "-T", "relay", "python", "-c", _CHANGED).split())
        of_the_file = {"redis_url", "trusted_proxies", "node"}
        assert given - of_the_file == {"token_secret", "token_secrets_file", "admin_secret", "status"}
    finally:
        del deployment.environment["RELAY_TOKEN_SECRETS_FILE"]
        file.unlink(missing_ok=True)
        secrets.unlink(missing_ok=True)
        deployment.down()


_STRANGERS = (("-X", "POST", f"{URL}/token"), (f"{URL}/status",), (f"{URL}/metrics",))
#: Prints the names of the settings that are not as they are by default.
_CHANGED = "from relay.settings import Settings; print(*Settings().model_dump(exclude_defaults=True))"


def _value(file: Path, name: str) -> str:
    (value,) = (line.partition("=")[2] for line in file.read_text().splitlines() if line.startswith(f"{name}="))
    return value


def test_the_first_day_and_the_worst_night(cluster: Deployment, tmp_path: Path) -> None:
    """Paste each block of the tour while that goes wrong which it is for."""
    if cluster.balancer == "nginx":
        return  # the page says what HAProxy does, and the rest is the same
    (day,) = shell_blocks(OPERATORS, "The first day")
    look, full, away, hung, down, stuck, flood = shell_blocks(OPERATORS, "The worst night")
    shown = cluster.type_in(day)
    assert "commands: all that a node needs" in shown
    assert shown.count("alive") == 3
    assert shown.endswith("ready\r\n")

    cluster.redis("CONFIG", "SET", "maxmemory", "1mb")
    _wait_for_tokens(cluster, are_made=False)
    shown = cluster.type_in(look.replace("relay check", "! relay check"))  # which finds something
    assert "OOM command not allowed" in shown
    assert "maxmemory_human:1.00M" in cluster.type_in(full)
    _wait_for_tokens(cluster)

    cluster.compose("stop", "-t", "1", "redis")
    _wait_for_tokens(cluster, are_made=False)
    errors = look.splitlines()[-1]
    wait_until(lambda: "Redis does not answer" in cluster.type_in(errors), "a heartbeat to fail")
    cluster.type_in(away)
    _wait_for_tokens(cluster)
    nodes = f"{look.splitlines()[0]}\nrelay nodes"
    wait_until(lambda: cluster.type_in(nodes).count(" alive ") == 3, "heartbeats of all nodes", timeout=40)

    node = cluster.containers("relay")[0]
    processes = cluster.run("docker", "top", node, "-eo", "pid,args").splitlines()
    (served,) = [line.split()[0] for line in processes if "python" in line]
    os.kill(int(served), signal.SIGSTOP)
    wait_until(lambda: " lost " in cluster.type_in(nodes), "the node to be lost", timeout=40)
    lost = re.findall(r"(\S+) +lost", cluster.type_in(nodes))
    (name,) = [each for each in lost if node.startswith(each.partition("-")[0])]
    cluster.type_in(f"NODE={name}\n{hung}")
    assert node not in cluster.containers("relay")
    wait_until(lambda: len(cluster.nodes_answering(60)) == 3, "three nodes to answer", timeout=40)

    cluster.compose("kill", "balancer")
    assert curl(f"{URL}/readyz").returncode == 7
    cluster.type_in(down)
    _wait_for_tokens(cluster)

    token = cluster.token()
    with upload(random_file(tmp_path / "file", 20_000), token, "stuck") as up:
        cluster.wait_state(token, "waiting", ["stuck"])
        cluster.type_in(f"{nodes}\nT={id_of(token)} NAME=stuck\n{stuck}")
        assert answer(up)[1] == "410"
    assert re.search(r" +\d+ \"address\": \"[0-9.]+\"", cluster.type_in(flood))


def _wait_for_tokens(cluster: Deployment, *, are_made: bool = True) -> None:
    """Wait until the balancer's clients get tokens, or get none."""
    what = "a token" if are_made else "the nodes to be unready"
    wait_until(lambda: (curl("-f", "-X", "POST", f"{URL}/token").returncode == 0) is are_made, what, timeout=40)


class Load:
    """A steady load of small transfers, from several workers."""

    def __init__(self, cluster: Deployment, folder: Path, workers: int) -> None:
        self.failures: list[str] = []
        self.done = 0
        self._cluster = cluster
        self._folder = folder
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(workers)
        self._work = [self._pool.submit(self._one_after_another, worker) for worker in range(workers)]

    def stop(self) -> None:
        self._stop.set()
        for work in self._work:
            work.result()
        self._pool.shutdown()

    def _one_after_another(self, worker: int) -> None:
        token = self._cluster.token()
        for number in itertools.count():
            if self._stop.is_set():
                return
            failure = self._transfer(token, f"{worker}-{number}", delay=number % 5 * 0.2)
            self.done += 1
            if failure:
                self.failures.append(failure)

    def _transfer(self, token: str, name: str, *, delay: float) -> str:
        """Run one transfer whose downloader comes `delay` seconds later. Return what went wrong, or ''."""
        source, target = random_file(self._folder / f"{name}.sent", 20_000), self._folder / f"{name}.got"
        # nginx does not know that a node drains, so its clients must be ready to retry after a 503.
        patience = ("--max-time", "30", *(("--retry", "8") if self._cluster.balancer == "nginx" else ()))
        query = "?wait=15" if self._cluster.balancer == "nginx" else ""
        with upload(source, token, name, *patience) as up:
            self._stop.wait(delay)
            with download(target, token, name, *patience, query=query) as down:
                got = answer(down)
            if got[:2] != (0, "200"):
                up.process.terminate()  # the upload would wait five minutes for another downloader
            sent = answer(up)
        whole = target.exists() and target.read_bytes() == source.read_bytes()
        source.unlink()
        target.unlink(missing_ok=True)
        if got[:2] == sent[:2] == (0, "200") and whole:
            return ""
        return f"{name}: upload {sent}, download {got}, {'whole' if whole else 'not whole'}"


@contextmanager
def _load(cluster: Deployment, folder: Path, workers: int = 3) -> Iterator[Load]:
    load = Load(cluster, folder, workers)
    try:
        yield load
    finally:
        load.stop()


class Slow:
    """A slow transfer that sends one piece per second."""

    def __init__(self, cluster: Deployment, name: str, seconds: int) -> None:
        self._sent = b""
        self._seconds = seconds
        token = cluster.token()
        self._up = upload("-", token, name, pipe=True)
        self._down = Curl("-N", f"{URL}/{token}/{name}?wait=20")
        cluster.wait_state(token, "streaming", [name])
        self._thread = threading.Thread(target=self._feed)
        self._thread.start()

    def _feed(self) -> None:
        tick = threading.Event()
        for _ in range(self._seconds):
            piece = os.urandom(10_000)
            self._sent += piece
            try:
                self._up.write(piece)
            except BrokenPipeError:
                break
            tick.wait(1)  # this sets the pace of the upload; it does not wait for a condition
        self._up.close()

    def finish(self) -> None:
        """Wait until the transfer ends, and check that it succeeded."""
        with self._up, self._down:
            code, output = self._down.finish()
            told = answer(self._up)
            self._thread.join()
        assert (code, told[:2]) == (0, (0, "200")), (code, told)
        assert output == self._sent


def test_a_rolling_restart_fails_no_transfer(cluster: Deployment, tmp_path: Path) -> None:
    before = set(cluster.containers("relay"))
    with _load(cluster, tmp_path) as load:
        # Behind nginx the transfers are shorter, to save a minute: only the handling of new requests differs there.
        slow = [Slow(cluster, f"slow-{number}", 60 if cluster.balancer == "haproxy" else 20) for number in range(2)]
        began = time.monotonic()
        try:
            (lines,) = shell_blocks(OPERATORS, "Upgrading a cluster")
            cluster.type_in(lines)
        finally:
            seconds = time.monotonic() - began
            load.stop()
            for transfer in slow:
                transfer.finish()
    print(f"{cluster.balancer}: {load.done} transfers in the {seconds:.0f} s of a rolling restart")
    assert load.failures == []
    assert load.done > 50
    assert len(cluster.containers("relay")) == 3
    assert not before & set(cluster.containers("relay"))
    (line,) = shell_blocks(OPERATORS, "What is going on")
    assert cluster.run("bash", "-c", line.replace("relay ps", "relay nodes")).count("alive") >= 3


def test_a_killed_node_takes_only_its_own_transfers_with_it(cluster: Deployment, tmp_path: Path) -> None:
    token, names = cluster.token(), [f"t{number}" for number in range(12)]
    source = random_file(tmp_path / "source", 300_000)
    ups = {name: upload(source, token, name, "--limit-rate", "15k") for name in names}  # for 20 s
    targets = {name: tmp_path / name for name in names}
    downs = {name: download(targets[name], token, name, query="?wait=20") for name in names}
    try:
        cluster.wait_state(token, "streaming", names)
        nodes = cluster.nodes_of(token, names)
        container = next(c for c in cluster.containers("relay") if nodes["t0"][0].startswith(c[:12]))
        hit = {name for name in names if any(node.startswith(container[:12]) for node in nodes[name])}
        assert hit
        assert hit != set(names)

        cluster.run("docker", "kill", "-s", "KILL", container)
        killed = time.monotonic()
        # The balancer notices at its next health check. Until then it tries another node if this one does not accept.
        assert all(after < 1 for after in _unserved(until=killed + 3))
        # An upload goes on if it is on another node, and its downloader comes back.
        lost = {name for name in hit if nodes[name][0].startswith(container[:12])}
        _ends({f"{name}-down": downs[name] for name in hit} | {f"{name}-up": ups[name] for name in lost}, killed)
        assert all(answer(ups[name])[1] != "200" for name in lost)
        assert all(answer(downs[name])[0] != 0 for name in hit)
        for name in hit - lost:
            downs[name] = download(targets[name], token, name, "-fC", "-")
        for name in set(names) - lost:
            assert answer(ups[name])[:2] == (0, "200")
            assert answer(downs[name])[0] == 0
            assert targets[name].read_bytes() == source.read_bytes()
        # The keys that only the dead node would have deleted expire by their TTL. Delete them for the other tests.
        for key in cluster.left_over():
            ttl = int(cluster.redis("TTL", key)[0])
            assert ttl != -1, "it never expires"
            assert ttl <= 120
            cluster.redis("DEL", key)
        with _load(cluster, tmp_path, workers=2) as load:
            wait_until(lambda: load.done >= 6, "new transfers")
        assert load.failures == []
    finally:
        for client in (*ups.values(), *downs.values()):
            with client:
                pass


def _ends(clients: dict[str, Curl], since: float) -> None:
    """Wait until all clients exit. Fail if one has not exited within 10 s after `since`."""
    ended: dict[str, float] = {}

    def all_ended() -> bool:
        for key, client in clients.items():
            if key not in ended and client.process.poll() is not None:
                ended[key] = round(time.monotonic() - since, 2)
        return len(ended) == len(clients)

    try:
        wait_until(all_ended, "the clients to be told", since + 10 - time.monotonic())
    finally:
        print(f"told after: {ended}, never: {sorted(set(clients) - set(ended))}")


def _unserved(*, until: float) -> list[float]:
    """Ask for tokens, one after the other, until that time. Return when requests failed, in seconds from the start."""
    began, failed = time.monotonic(), []
    while (now := time.monotonic()) < until:
        if curl("-o", os.devnull, "-w", "%{http_code}", "-X", "POST", f"{URL}/token").stdout != b"200":
            failed.append(round(now - began, 2))
    return failed


def test_nodes_recover_by_themselves_after_a_restart_of_redis(cluster: Deployment, tmp_path: Path) -> None:
    cluster.compose("stop", "-t", "1", "redis")
    # While the balancer considers the nodes ready, they answer. Afterwards the balancer answers itself.
    answers: set[bytes] = set()

    def by_the_balancer() -> bool:
        said = curl("-i", "-X", "POST", f"{URL}/token").stdout
        answers.add(said)
        return b"relay-node" not in said.lower()

    if cluster.balancer == "haproxy":
        wait_until(by_the_balancer, "the balancer to see that no node is ready")
    assert by_the_balancer() == (cluster.balancer == "haproxy")
    for said in answers:
        header, _, line = said.partition(b"\r\n\r\n")
        assert header.startswith(b"HTTP/1.1 503"), said
        assert b"retry-after:" in header.lower()
        assert b"Redis" in line
        assert line.count(b"\n") == 1
    started = time.monotonic()
    cluster.compose("start", "redis")
    wait_until(lambda: curl("-f", "-X", "POST", f"{URL}/token").returncode == 0, "a token")
    print(f"{cluster.balancer}: tokens again {time.monotonic() - started:.1f} s after the start of Redis")
    # nginx also forwards requests to a node that has not reached Redis yet.
    wait_until(lambda: len(nodes := cluster.nodes_answering(30, "/readyz")) == 3 and "" not in nodes, "all to be ready")
    # All nodes must work at once. None may take another for dead because Redis has no heartbeat of it yet.
    with _load(cluster, tmp_path, workers=8) as load:
        wait_until(lambda: load.done >= 40, "new transfers")
    assert load.failures == []
