"""Fixtures: two nodes over one real Redis, and a folder for what is received."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cluster import Cluster, over_redis
from tests.support.redis import RedisServer


@pytest.fixture(scope="session")
def two_nodes(redis_server: RedisServer) -> Iterator[Cluster]:
    with over_redis(redis_server, "ab", resume_wait=10) as cluster:
        yield cluster


@pytest.fixture
def cluster(two_nodes: Cluster) -> Iterator[Cluster]:
    yield from two_nodes.checked()


@pytest.fixture(autouse=True)
def state_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let the commands keep what outlives them in a folder of the test. Return it."""
    path = tmp_path_factory.mktemp("state")
    monkeypatch.setenv("XDG_STATE_HOME", str(path))
    return path


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    """Return an empty folder to receive files in."""
    path = tmp_path / "inbox"
    path.mkdir()
    return path
