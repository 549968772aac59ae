"""A node without RELAY_REDIS_URL has a redis-server of its own: who sees it, how it ends, and what if there is none."""

import contextlib
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import redis

from relay.store import own_redis
from tests.support.cluster import CUT_OFF, Cluster, Curl, NodeProcess, alone
from tests.support.redis import newest
from tests.support.wait import wait_until


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Give the nodes of a test a folder for temporary files, in which nothing of theirs may be left in the end.

    pytest's `tmp_path` may be too long for a socket. It is among the arguments because it must not be made in here.
    """
    newest("a node's own redis-server was not tested")
    with tempfile.TemporaryDirectory(prefix="relay-test-") as name:
        monkeypatch.setenv("TMPDIR", name)
        monkeypatch.setattr(tempfile, "tempdir", None)
        yield Path(name)
        assert stores(Path(name)) == []
    monkeypatch.setattr(tempfile, "tempdir", None)


@pytest.fixture
def node(folder: Path) -> Iterator[Cluster]:
    with alone() as cluster:
        yield cluster


def stores(folder: Path) -> list[Path]:
    return list(folder.glob("relay-store-*"))


def child_of(node: NodeProcess) -> psutil.Process:
    (child,) = psutil.Process(node.process.pid).children()
    return child


@contextlib.contextmanager
def transfer(cluster: Cluster, token: str) -> Iterator[tuple[Curl, Curl]]:
    """Yield an upload and its download, of which 100 bytes have arrived and more are to come."""
    url = cluster.url(0, token, "x")
    with Curl("-T", "-", "-w", "%{http_code}", url, pipe=True) as upload, Curl("-N", url + "?wait=10") as download:
        upload.write(bytes(100))
        assert download.read(100) == bytes(100)
        yield upload, download


def relay(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RELAY_")}
    command = [sys.executable, "-m", "relay", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_it_is_for_this_node_and_this_user_only(node: Cluster, folder: Path) -> None:
    child = child_of(node[0])
    (own,) = stores(folder)
    assert own.stat().st_mode & 0o777 == stat.S_IRWXU
    assert not child.net_connections("tcp")
    assert f"with a redis-server of its own: unix://{own}/redis.sock" in node[0].log()
    assert not any(name.startswith("RELAY_") for name in child.environ())
    with redis.Redis(unix_socket_path=str(own / "redis.sock")) as client:
        found = {
            name: client.config_get(name)[name] for name in ("maxmemory", "maxmemory-policy", "save", "appendonly")
        }
    assert [*found.values()] == [str(256 * 1024 * 1024), "noeviction", "", "no"]


def test_the_operators_commands_find_it(node: Cluster) -> None:
    token = node.token()
    with transfer(node, token) as (upload, download):
        listed = relay("ps")
        assert (listed.returncode, token[:8] in listed.stdout) == (0, True)
        assert listed.stderr.startswith("relay: RELAY_REDIS_URL is not set, so this is about the node here that has ")
        assert relay("check").returncode == 0
        upload.write_all(b"")
        assert (upload.finish()[0], download.finish()[0]) == (0, 0)
    with own_redis.own_redis():
        refused = relay("ps")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith(
        "relay: several nodes here have a Redis of their own: choose with --redis-url unix://"
    )


def test_it_outlives_ctrl_c_until_the_node_has_drained(folder: Path) -> None:
    node = NodeProcess("alone", own_session=True)
    cluster = Cluster([node], None, "relay")
    child = child_of(node)
    with transfer(cluster, cluster.token()) as (upload, download):
        os.killpg(node.process.pid, signal.SIGINT)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # to all processes of a service, for example
            child.send_signal(number)
        wait_until(lambda: "draining" in node.log(), "the drain")
        upload.write_all(bytes(100))
        assert upload.finish()[1].endswith(b"200")
        assert download.finish() == (0, bytes(100))
    node.process.wait(30)
    assert not child.is_running()
    assert "has ended" not in node.log()
    assert node.stop() == 0


def test_it_ends_with_a_node_that_is_killed_and_the_next_node_clears_up(folder: Path) -> None:
    with own_redis.own_redis() as other:
        killed = NodeProcess("killed")
        killed.wait_ready()
        child = child_of(killed)
        killed.kill()
        wait_until(lambda: not child.is_running(), "the end of its redis-server")
        assert len(stores(folder)) == 2
        with own_redis.own_redis() as following:
            assert len(stores(folder)) == 2
            assert own_redis.running() == sorted([other, following])


def test_another_one_takes_its_place(node: Cluster) -> None:
    with transfer(node, node.token()) as (upload, download):
        child_of(node[0]).kill()
        wait_until(lambda: "of this node has ended (SIGKILL)" in node[0].log(), "a line in the log")
        assert download.finish()[0] == CUT_OFF
        assert upload.finish()[1][-3:] >= b"400"
    wait_until(node[0].is_ready, "the node to be ready again")
    with transfer(node, node.token()) as (upload, download):
        upload.write_all(b"")
        assert upload.finish()[1].endswith(b"200")
    child_of(node[0])


def test_if_none_can_take_its_place_that_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_redis, "_PAUSE", 0.01)
    program = tmp_path / "redis-server"
    program.symlink_to(newest(""))
    before = {*psutil.Process().children()}
    with path_of(tmp_path), own_redis.own_redis() as url:
        program.rename(tmp_path / "away")
        ({*psutil.Process().children()} - before).pop().kill()
        wait_until(lambda: "no other redis-server can be started" in caplog.text, "a line in the log")
        (tmp_path / "away").rename(program)
        wait_until(lambda: answers(url), "the next one")
    assert not answers(url)
    assert [record.message.partition(",")[0].partition(":")[0] for record in caplog.records] == [
        "the redis-server of this node has ended (SIGKILL)",
        "no other redis-server can be started",
    ]


def answers(url: str) -> bool:
    with contextlib.suppress(redis.RedisError), redis.Redis.from_url(url) as client:
        return bool(client.ping())
    return False


def test_without_one_the_node_keeps_its_store_in_its_process(tmp_path: Path) -> None:
    with path_of(tmp_path), pytest.raises(own_redis.MissingError, match="is on PATH"), own_redis.own_redis():
        pass
    (tmp_path / "redis-server").touch(mode=0o755)
    with contextlib.ExitStack() as stack:
        with path_of(tmp_path):
            cluster = stack.enter_context(alone())
        problem = f"{tmp_path}/redis-server: Exec format error: so this node keeps its store in its own process"
        (line,) = [line for line in cluster[0].log().splitlines() if " WARNING " in line]
        assert problem in line
        carries(cluster)
    with alone(redis_url="memory://") as cluster:
        assert "alone, with its store in its own process" in cluster[0].log()
        assert not psutil.Process(cluster[0].process.pid).children()
    assert relay("ps", "--redis-url", "memory://").stderr.startswith("relay: memory:// is the memory of a node")


def arguments_of(process: psutil.Process) -> list[str]:
    with contextlib.suppress(psutil.Error):
        return process.cmdline()
    return []


def carries(cluster: Cluster) -> None:
    with transfer(cluster, cluster.token()) as (upload, download):
        upload.write_all(b"")
        assert (upload.finish()[0], download.finish()[0]) == (0, 0)


@contextlib.contextmanager
def path_of(*folders: Path) -> Iterator[None]:
    """Let programs be found in these folders only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", os.pathsep.join(map(str, folders)))
        yield


_OLD = f"""#!{sys.executable}
import socket, sys
server = socket.socket(socket.AF_UNIX)
server.bind(sys.argv[sys.argv.index("--unixsocket") + 1])
server.listen()
while True:
    client, _ = server.accept()
    while received := client.recv(4096):
        client.sendall(b"$20\\r\\nredis_version:5.0.14\\r\\n" if b"INFO\\r\\n" in received else b"+OK\\r\\n")
"""


@pytest.mark.parametrize(
    ("program", "problem"),
    [
        ("#!/bin/sh\necho '*** FATAL CONFIG FILE ERROR ***'\nexit 3\n", "exit status 3, *** FATAL CONFIG FILE ERROR"),
        ("#!/bin/sh\nexit 0\n", "it ends at once (exit status 0)"),
        ("#!/bin/sh\nexec sleep 60\n", "it does not answer within 0.5 s"),
        ("\x7fELF", "Exec format error"),
        ("#!/nowhere/sh\n", "No such file or directory"),
        (f'#!/bin/sh\n{shutil.which("redis-server")} "$@"\nexit\n', "it starts another process"),
        (_OLD, "Redis 5.0.14 is too old: 6.2 or newer is needed"),
    ],
)
def test_a_program_that_cannot_be_used(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, problem: str
) -> None:
    (tmp_path / "redis-server").write_text(program)
    (tmp_path / "redis-server").chmod(0o755)
    monkeypatch.setattr(own_redis, "_START", 0.5 if "sleep" in program else 10)
    children = psutil.Process().children()
    with pytest.raises(own_redis.UnusableError) as raised, path_of(tmp_path, Path("/bin")), own_redis.own_redis():
        pass
    assert str(raised.value).startswith(f"{tmp_path}/redis-server: ")
    assert problem in str(raised.value)
    assert psutil.Process().children() == children
    assert not [process for process in psutil.process_iter() if str(folder) in " ".join(arguments_of(process))]


def test_the_other_program_is_used_if_the_first_cannot_be(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "redis-server").touch(mode=0o755)
    (tmp_path / "valkey-server").symlink_to(newest(""))
    with path_of(tmp_path), own_redis.own_redis() as url:
        assert own_redis.running() == [url]
    assert own_redis.running() == []


def test_a_path_that_is_too_long_for_a_socket(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = folder / ("x" * 100)
    deep.mkdir()
    monkeypatch.setenv("TMPDIR", str(deep))
    with pytest.raises(own_redis.UnusableError, match="Set TMPDIR to a shorter one"), own_redis.own_redis():
        pass
    shutil.rmtree(deep)
