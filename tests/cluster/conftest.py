"""Three nodes over one real Redis, with the default settings, and real clients."""

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cluster import Cluster, NodeProcess
from tests.support.redis import RedisServer
from tests.support.wait import wait_until


@pytest.fixture(scope="session")
def three_nodes(redis_server: RedisServer) -> Iterator[Cluster]:
    prefix = f"cluster-{secrets.token_hex(4)}"
    nodes = [NodeProcess(name, redis_server.url, {"prefix": prefix}) for name in ("a", "b", "c")]
    cluster = Cluster(nodes, redis_server.client(), prefix)
    yield cluster
    cluster.stop()
    assert not list(cluster.keys("node"))
    assert "Traceback" not in cluster.logs()


@pytest.fixture
def cluster(three_nodes: Cluster) -> Iterator[Cluster]:
    """The cluster; after each test no transfer may have left a key, and no token may be whole in a log."""
    yield three_nodes
    wait_until(lambda: not three_nodes.left_over(), "no key to be left over", timeout=40)


@pytest.fixture
def token(cluster: Cluster) -> Iterator[str]:
    token = cluster.token()
    yield token
    assert token not in cluster.logs()


@pytest.fixture(scope="session")
def gigabyte(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """1 GiB of random bytes, deleted afterwards."""
    path = tmp_path_factory.mktemp("data") / "gigabyte.bin"
    with path.open("wb") as file:
        for _ in range(64):
            file.write(os.urandom(16 * 1024 * 1024))
    yield path
    path.unlink()
