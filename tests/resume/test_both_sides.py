"""Retry loops of plain curl on both sides: the file arrives whole, whatever happens to connections and nodes."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen

import pytest

from tests.resume.clients import curl_loop
from tests.resume.conftest import HUGE, MIB, SIZE
from tests.support.cluster import Cluster, Curl, over_redis
from tests.support.redis import RedisServer
from tests.support.wait import wait_until

#: Rates of downloads in bytes per second, so that there is time for what happens in the middle.
RATE, RATE_HUGE = 16 * MIB, max(16 * MIB, HUGE // 10)


@contextmanager
def loop(*arguments: str) -> Iterator[Popen[bytes]]:
    """Run sh with these arguments, and end what it runs with it."""
    process = Popen(["sh", *arguments], stdin=DEVNULL, stdout=PIPE, stderr=DEVNULL, start_new_session=True)
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def upload_loop(url: str, file: Path) -> list[str]:
    """Return the arguments of sh for the loop of the documentation."""
    return ["-c", 'until curl -fsS -H Expect: -T "$1" "$0"; do sleep 0.1; done', url, str(file)]


def size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


@pytest.fixture
def cluster(redis_server: RedisServer) -> Iterator[Cluster]:
    """Two nodes whose deaths are noticed soon."""
    with over_redis(redis_server, "ab", heartbeat=0.5, node_death=2) as cluster:
        yield cluster
        # What a killed node was reading expires.
        cluster.wait_clean(60)


def test_each_node_is_killed_in_turn(cluster: Cluster, huge_file: Path, tmp_path: Path) -> None:
    token, target = cluster.token(), tmp_path / "target"
    with (
        loop(*upload_loop(cluster.url(0, token, "x"), huge_file)) as upload,
        loop(*curl_loop(cluster.url(1, token, "x"), str(target), more=f"--limit-rate {RATE_HUGE}")) as download,
    ):
        for kill, part in ((0, 1), (1, 2), (0, 3)):
            wait_until(lambda part=part: size(target) > part * HUGE // 5, f"part {part}", timeout=60)  # type: ignore[misc]
            node = cluster[kill]
            node.kill()
            cluster.nodes[kill] = node.successor()
            cluster.nodes[kill].wait_ready()
            assert download.poll() is None
        assert download.wait(90) == 0
        assert upload.communicate(timeout=90)[0] == f"delivered {HUGE} bytes\n".encode()
    assert target.read_bytes() == huge_file.read_bytes()


def test_what_cannot_be_sent_again_begins_again(cluster: Cluster, big_file: Path, tmp_path: Path) -> None:
    """A download from byte 0 on ends an upload that is too far for that. Then both loops begin again."""
    token, target = cluster.token(), tmp_path / "target"
    with loop(*upload_loop(cluster.url(0, token, "x"), big_file)) as upload:
        with Curl("-N", "--limit-rate", str(RATE), cluster.url(1, token, "x") + "?wait=20") as first:
            assert len(first.read(24 * MIB)) == 24 * MIB
        with Curl("-w", "%{http_code}", "-o", target, cluster.url(1, token, "x") + "?wait=20") as second:
            assert second.finish() == (0, b"200")
        assert upload.communicate(timeout=60)[0] == f"delivered {SIZE} bytes\n".encode()
    assert target.read_bytes() == big_file.read_bytes()
