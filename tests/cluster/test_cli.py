"""The operator's commands, typed as an operator would, against a running cluster: output and exit status."""

import json
import os
import pty
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.cluster import CUT_OFF, Cluster, Curl, NodeProcess, assert_no_traceback, id_of
from tests.support.ports import free_port
from tests.support.redis import RedisServer
from tests.support.wait import wait_until


class Relay:
    """Runs the command line against the cluster."""

    def __init__(self, cluster: Cluster, url: str, folder: Path) -> None:
        self._environment = os.environ | {"RELAY_REDIS_URL": url, "RELAY_PREFIX": cluster.prefix}
        self._environment["TMPDIR"] = str(folder)  # in which there is no node with a Redis of its own

    def start(self, *arguments: str, stdout: int = subprocess.PIPE) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "relay", *arguments]
        return subprocess.Popen(command, env=self._environment, stdout=stdout, stderr=subprocess.PIPE, text=True)

    def __call__(self, *arguments: str) -> tuple[int, str]:
        """Run a command. Return its exit status and what it printed."""
        process = self.start(*arguments)
        output, error = process.communicate(timeout=60)
        assert_no_traceback(error)
        return process.returncode, output + error

    def json(self, *arguments: str) -> list[dict[str, Any]]:
        status, output = self(*arguments, "--json")
        assert status == 0, output
        found: list[dict[str, Any]] = json.loads(output)
        return found


@pytest.fixture
def relay(cluster: Cluster, redis_server: RedisServer, tmp_path: Path) -> Relay:
    return Relay(cluster, redis_server.url, tmp_path)


@pytest.fixture
def streams(cluster: Cluster, token: str) -> Iterator[tuple[Curl, Curl]]:
    """Start an upload `a b` at node 0 and its download at node 1, and send 100 bytes through."""
    with Curl("-T", "-", "-w", "%{http_code}", cluster.url(0, token, "a%20b"), pipe=True) as upload:
        cluster.wait_state(token, "waiting")
        with Curl("-N", cluster.url(1, token, "a%20b")) as download:
            upload.write(b"x" * 100)
            assert download.read(100) == b"x" * 100
            yield upload, download


def test_ps(cluster: Cluster, relay: Relay, token: str, streams: tuple[Curl, Curl]) -> None:
    def mine() -> dict[str, Any]:
        return next(transfer for transfer in relay.json("ps") if transfer["token"] == id_of(token))

    wait_until(lambda: mine()["delivered"] == 100, "the acknowledgement")
    shown = mine()
    assert (shown["name"], shown["state"], shown["length"]) == ("a b", "streaming", None)
    assert (shown["uploader"], shown["downloader"]) == (cluster[0].id, cluster[1].id)
    status, text = relay("ps")
    assert status == 0
    assert text.startswith("NAME ")
    (line,) = [line for line in text.splitlines() if shown["id"] in line]
    assert line.startswith("a%20b ")
    assert line.split()[-2:] == [id_of(token), shown["id"]]
    assert token not in text


def test_nodes(cluster: Cluster, relay: Relay) -> None:
    assert {node.id for node in cluster.nodes} <= {node["node"] for node in relay.json("nodes") if node["alive"]}
    status, text = relay("nodes")
    assert (status, text.split()[0]) == (0, "NODE")


def test_tokens(relay: Relay, token: str) -> None:
    (mine,) = [life for life in relay.json("tokens") if life["token"] == id_of(token)]
    assert 1190 < mine["expires_in"] <= 1200
    status, text = relay("tokens")
    assert status == 0
    assert id_of(token) in text
    assert token not in text


@pytest.mark.parametrize("name", ["a b", "a%20b"])
def test_cancel_tells_both_sides(relay: Relay, token: str, streams: tuple[Curl, Curl], name: str) -> None:
    upload, download = streams
    status, text = relay("cancel", token[:8] + "…", name)
    assert (status, text) == (0, f"cancelled {id_of(token)} a%20b\n")
    assert download.finish()[0] == CUT_OFF
    assert upload.finish()[1].endswith(b"410")


def test_cancel_ends_a_wait_at_once(cluster: Cluster, relay: Relay, token: str) -> None:
    with Curl("-T", "-", "-w", "%{http_code}", cluster.url(0, token, "x"), pipe=True) as upload:
        cluster.wait_state(token, "waiting")
        assert relay("cancel", token, "x")[0] == 0
        assert upload.finish()[1].endswith(b"410")


def test_revoke_ends_all_transfers_of_the_token(relay: Relay, token: str, streams: tuple[Curl, Curl]) -> None:
    upload, download = streams
    assert relay("revoke", token) == (0, f"revoked {id_of(token)}\n")
    assert download.finish()[0] == CUT_OFF
    assert upload.finish()[1].endswith(b"401")
    assert relay("revoke", token) == (1, f"relay: there is no token {id_of(token)}\n")


def test_a_transfer_that_does_not_exist_is_exit_status_1(relay: Relay, token: str) -> None:
    status, text = relay("cancel", token, "nothing")
    assert status == 1
    assert text.startswith("relay: ")
    assert text.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["cancel", "*", "x"], "relay: a token has letters and digits only\n"),
        (["ps", "--redis-url", ""], "relay: RELAY_REDIS_URL is not set: say with --redis-url"),
        (["ps", "--redis-url", "http://x"], "relay: --redis-url: must begin with redis://"),
        (["tokens", "--prefix", "a:b"], "relay: --prefix: "),
        (["cancel", "x"], "Usage: "),
    ],
)
def test_bad_arguments_are_exit_status_2(relay: Relay, arguments: list[str], line: str) -> None:
    status, text = relay(*arguments)
    assert status == 2
    assert text.startswith(line)


def test_an_ambiguous_token_ends_nothing(cluster: Cluster, relay: Relay) -> None:
    made: dict[str, str] = {}
    while (token := cluster.token())[0] not in made:  # of 63 tokens two begin alike: there are 62 characters
        made[token[0]] = token
    status, text = relay("revoke", token[0])
    assert status == 2
    assert "give more of it" in text
    assert {id_of(token), id_of(made[token[0]])} <= {life["token"] for life in relay.json("tokens")}


def test_an_unreachable_redis_is_exit_status_3(relay: Relay) -> None:
    status, text = relay("ps", "--redis-url", f"redis://127.0.0.1:{free_port()}")
    assert status == 3
    assert text.startswith("relay: Redis: ")
    assert text.count("\n") == 1


def test_check_says_what_it_found(relay: Relay) -> None:
    status, text = relay("check")
    assert status == 0, text
    assert "maxmemory-policy: noeviction" in text


def test_check_of_a_wrong_redis_is_exit_status_3(relay: Relay) -> None:
    status, text = relay("check", "--redis-url", f"redis://relay:secret@127.0.0.1:{free_port()}")
    assert status == 3
    assert text.startswith("relay: Redis: write: ")
    assert "is Redis up" in text
    assert "secret" not in text
    assert text.count("\n") == 1


def test_a_node_that_cannot_reach_its_redis_says_so_at_once() -> None:
    port = free_port()
    node = NodeProcess("lost", f"redis://relay:secret@127.0.0.1:{port}")
    try:
        wait_until(lambda: f"Redis at 127.0.0.1:{port}: " in node.log(), "the line", timeout=8)
        time.sleep(3)  # more heartbeats fail
        assert node.log().count("Redis at ") == 1
        assert "is Redis up" in node.log()
        assert "secret" not in node.log()
    finally:
        node.kill()


def test_watch_repeats_the_output_and_ends_quietly(relay: Relay) -> None:
    watching = relay.start("ps", "--watch", "--json")
    assert watching.stdout
    for _ in range(2):
        assert isinstance(json.loads(watching.stdout.readline()), list)
    watching.send_signal(signal.SIGINT)
    output, error = watching.communicate(timeout=60)
    assert (watching.returncode, output, error) == (130, "", "")


def test_watch_fits_the_terminal(relay: Relay, token: str, streams: tuple[Curl, Curl]) -> None:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (10, 80))
    try:
        with relay.start("ps", "--watch", stdout=theirs) as watching:
            shown = b""
            while shown.count(b"\x1b[J") < 2:  # the end of a repaint
                shown += os.read(ours, 65536)
            watching.send_signal(signal.SIGINT)
            assert watching.wait(timeout=60) == 130
    finally:
        os.close(ours)
        os.close(theirs)
    lines = shown.decode().split("\x1b[J")[1].replace("\x1b[H", "").replace("\x1b[K", "").splitlines()
    assert len(lines) <= 9
    assert all(len(line) <= 80 for line in lines)
    assert lines[0].startswith("streaming ")
    assert any(id_of(token) in line and line.startswith("a%20b ") for line in lines)


def test_a_closed_pipe_is_no_error(relay: Relay, token: str) -> None:
    piped = relay.start("ps", "--watch")
    assert piped.stdout
    assert piped.stdout.readline().startswith("NAME ")
    piped.stdout.close()
    assert piped.stderr
    assert piped.stderr.read() == ""
    piped.wait(timeout=60)
    piped.stderr.close()
