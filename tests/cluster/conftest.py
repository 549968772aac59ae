"""Fixtures: three nodes over one real Redis, with the default settings but for one. The clients are real, too."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cluster import Cluster, over_redis
from tests.support.redis import RedisServer


@pytest.fixture(scope="session")
def three_nodes(redis_server: RedisServer) -> Iterator[Cluster]:
    # No downloader of these tests comes back, so an upload waits for it only briefly.
    with over_redis(redis_server, "abc", rejoin_wait=1) as cluster:
        yield cluster
    assert not list(cluster.keys("node"))


@pytest.fixture
def cluster(three_nodes: Cluster) -> Iterator[Cluster]:
    yield from three_nodes.checked()


@pytest.fixture
def token(cluster: Cluster) -> Iterator[str]:
    """Yield a new token. After the test, check that no log contains it in full."""
    token = cluster.token()
    yield token
    assert token not in cluster.logs()


@pytest.fixture(scope="session")
def gigabyte(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Make a file with 1 GiB of random bytes, and delete it after the session."""
    path = tmp_path_factory.mktemp("data") / "gigabyte.bin"
    with path.open("wb") as file:
        for _ in range(64):
            file.write(os.urandom(16 * 1024 * 1024))
    yield path
    path.unlink()
