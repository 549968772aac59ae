"""Nodes die, freeze or lose Redis. The other side is told, the name is free, and a node that returns does no harm."""

import contextlib
import signal
import time
from pathlib import Path

import httpx
import pytest

from tests.faults.conftest import LIMITS, Faulty, LinkedNode, Start, joined
from tests.support.cluster import CUT_OFF, Cluster, Curl, NodeProcess, curl, id_of
from tests.support.redis import RedisServer
from tests.support.wait import wait_until

MIB = 1024 * 1024
SIDES = pytest.mark.parametrize("side", ["uploader", "downloader"])


def on(side: str, victim: LinkedNode) -> dict[str, LinkedNode]:
    """Return the options of `start` that put the victim on this side of a transfer."""
    return {"up" if side == "uploader" else "down": victim}


def wait_free(cluster: Faulty, token: str) -> None:
    wait_until(lambda: httpx.head(cluster.url(0, token, "x")).status_code == 404, "the name to be free", timeout=30)


@SIDES
def test_a_node_is_killed(cluster: Faulty, victim: LinkedNode, token: str, start: Start, side: str) -> None:
    transfer = start(**on(side, victim))
    transfer.feed(b"some")
    victim.kill()
    wait_free(cluster, token)
    transfer.assert_broken(502 if side == "downloader" else 0)


@SIDES
@pytest.mark.parametrize("how", ["frozen", "cut off"])
def test_a_node_is_gone_and_returns(
    cluster: Faulty, victim: LinkedNode, token: str, start: Start, side: str, how: str, tmp_path: Path
) -> None:
    """When the node comes back, the name already has another transfer. The node does not touch it."""
    transfer = start(**on(side, victim))
    transfer.feed(b"some")
    if how == "frozen":
        victim.signal(signal.SIGSTOP)
    else:
        victim.link.is_silent = True
    wait_free(cluster, token)
    other = start()
    other.feed(b"other ")
    if how == "frozen":
        victim.signal(signal.SIGCONT)
    else:
        victim.link.is_silent = False
        victim.link.cut()
    transfer.assert_broken(502, 503)
    wait_until(victim.is_ready, "the victim to be ready again")
    other.feed(b"and more")
    other.assert_complete()


@SIDES
def test_a_node_is_frozen_briefly(cluster: Faulty, victim: LinkedNode, start: Start, source: Path, side: str) -> None:
    transfer = start(**on(side, victim), source=source, rate="4M")
    transfer.wait_arrived(MIB)
    victim.signal(signal.SIGSTOP)
    time.sleep(LIMITS["node_death"] / 2)  # the fault under test is this pause
    victim.signal(signal.SIGCONT)
    transfer.assert_complete()


def test_a_node_is_killed_and_started_again_under_its_name(
    cluster: Faulty, victim: LinkedNode, token: str, tmp_path: Path
) -> None:
    """The new process has none of the old one's clients. Their names are free once the old process counts as dead."""
    source = tmp_path / "source"
    source.write_bytes(b"again")
    key = f"{cluster.prefix}:transfer:{{{id_of(token)}}}:x"
    with Curl("-T", "-", f"{victim.url}/{token}/x", pipe=True):
        cluster.wait_state(token, "waiting")
        victim.kill()
        with (
            contextlib.contextmanager(joined)(cluster, "victim") as again,
            Curl(
                "-f",
                "--retry",
                "9",
                "--retry-delay",
                "1",
                "--retry-all-errors",
                "-T",
                source,
                again.url + f"/{token}/x",
            ) as upload,
        ):
            wait_until(
                lambda: cluster.redis and cluster.redis.hget(key, "uploader") == again.id.encode(),
                "the name",
                timeout=15,
            )
            cluster.may_linger = True  # the outcome that was written for the killed node stays until it expires
            assert curl(cluster.url(0, token, "x")).stdout == b"again"
            assert upload.finish()[0] == 0


@pytest.mark.parametrize("what", ["a wake-up", "a node"])
def test_rubbish_in_redis_stops_neither_heartbeats_nor_wake_ups(cluster: Faulty, token: str, what: str) -> None:
    assert cluster.redis is not None
    if what == "a wake-up":
        for node in range(len(cluster.nodes)):
            cluster.put_into_inbox(node, {b"\xff": b"\xff"})
            cluster.put_into_inbox(node, {b"about": b"\xff"})
    else:
        cluster.redis.zadd(f"{cluster.prefix}:nodes", {b"\xff": time.time()})
        cluster.redis.zadd(f"{cluster.prefix}:tokens", {b"\xff": time.time() + 60})
    beat = cluster.redis.zscore(f"{cluster.prefix}:nodes", cluster[0].id)
    assert beat
    wait_until(
        lambda: ((cluster.redis and cluster.redis.zscore(f"{cluster.prefix}:nodes", cluster[0].id)) or 0) > beat + 1,
        "another beat",
    )
    assert httpx.get(cluster.url(1, "")).status_code == 200
    begun = time.monotonic()
    with Curl(cluster.url(1, token, "x") + "?wait=60") as download:
        key = f"{cluster.prefix}:token:{{{id_of(token)}}}"
        wait_until(lambda: cluster.redis and cluster.redis.hget(key, "wanted:x"), "the wish to be known")
        assert curl("-T", "/dev/null", cluster.url(0, token, "x")).stdout == b"delivered 0 bytes\n"
        assert download.finish() == (0, b"")
    assert time.monotonic() - begun < 15, "only the slow re-check found the upload, not a wake-up"


@SIDES
def test_a_node_with_the_default_limits_is_killed(redis_server: RedisServer, prefix: str, side: str) -> None:
    """The other side is told, and the name is free, within 10 s; unless an upload waits for its downloader."""
    limits = {"prefix": prefix, "rejoin_wait": 0}
    nodes = [NodeProcess(name, redis_server.url, limits) for name in ("up", "down")]
    killed, other = nodes if side == "uploader" else reversed(nodes)
    with contextlib.ExitStack() as stack:
        for node in nodes:
            stack.callback(node.kill)
        cluster = Cluster(nodes, redis_server.client(), prefix)
        token = cluster.token()
        upload = stack.enter_context(Curl("-T", "-", cluster.url(0, token, "x"), pipe=True))
        cluster.wait_state(token, "waiting")
        download = stack.enter_context(Curl("-N", cluster.url(1, token, "x")))
        upload.write(b"some")
        assert download.read(4) == b"some"
        killed.kill()
        begun = time.monotonic()
        if side == "uploader":
            assert download.finish()[0] == CUT_OFF
        else:
            assert b"node of the other side died" in upload.finish()[1]
        assert httpx.head(f"{other.url}/{token}/x").status_code == 404
        assert time.monotonic() - begun < 10
        assert "outcome=node_lost" in other.log()
