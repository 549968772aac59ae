"""A master of a Redis Cluster hangs or vanishes in the middle of streams, and its replica takes its place."""

import os
import secrets
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.faults.transfers import Watched
from tests.support.cluster import Cluster, NodeProcess, assert_no_traceback
from tests.support.redis import RedisServer, cluster_with_replicas, newest

MIB = 1024 * 1024


@pytest.fixture
def servers() -> Iterator[list[RedisServer]]:
    with cluster_with_replicas(newest("failovers of a Redis Cluster were not tested")) as servers:
        yield servers


@pytest.fixture
def cluster(servers: list[RedisServer]) -> Iterator[Cluster]:
    url = "redis+cluster://" + ",".join(f"127.0.0.1:{server.port}" for server in servers)
    settings = {"prefix": f"failover-{secrets.token_hex(4)}"}
    cluster = Cluster([NodeProcess(name, url, settings) for name in ("a", "b")], None, settings["prefix"])
    yield cluster
    cluster.stop()
    assert_no_traceback(cluster.logs())


@pytest.mark.parametrize("how", [signal.SIGSTOP, signal.SIGKILL], ids=["hangs", "is killed"])
def test_a_master_is_replaced(
    cluster: Cluster, servers: list[RedisServer], tmp_path: Path, how: signal.Signals
) -> None:
    """The stream goes on, its token is kept, and new transfers begin, while the old master stays away."""
    source = tmp_path / "source"
    source.write_bytes(os.urandom(8 * MIB))
    for node in cluster.nodes:
        node.wait_ready()
    token = cluster.token()
    running = Watched(tmp_path, *(cluster.url(node, token, "x") for node in (0, 1)), source=source, rate="1M")
    running.wait_arrived(MIB)
    client: Any = redis.RedisCluster(host="127.0.0.1", port=servers[0].port)
    port = client.get_node_from_key(f"{{{token}}}").port
    client.close()
    master = next(server for server in servers if server.port == port)
    os.kill(master.process.pid, how)
    begun = time.monotonic()
    try:
        running.finish()
        print(f"the running stream ended after {time.monotonic() - begun:.1f} s: {running.status}")
        assert time.monotonic() - begun < 20
        (tmp_path / "after").mkdir()
        after = Watched(tmp_path / "after", *(cluster.url(node, token, "y") for node in (0, 1)), source=source)
        after.assert_complete()
        running.assert_complete()
    finally:
        if how is signal.SIGSTOP:
            os.kill(master.process.pid, signal.SIGCONT)
