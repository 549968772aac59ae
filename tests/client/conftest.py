"""Fixtures: two nodes over one real Redis, and a folder for what is received."""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.client.commands import through
from tests.support.cluster import Cluster, over_redis
from tests.support.redis import RedisServer


@pytest.fixture(scope="session")
def two_nodes(redis_server: RedisServer) -> Iterator[Cluster]:
    with over_redis(redis_server, "ab", resume_wait=10) as cluster:
        yield cluster


@pytest.fixture
def cluster(two_nodes: Cluster, state_home: Path) -> Iterator[Cluster]:
    """Yield two nodes. Afterwards, end the uploads that a later command could go on with."""
    yield two_nodes
    for file in state_home.rglob("*.json"):
        url = json.loads(file.read_text())["url"]
        httpx.delete(through(two_nodes[0].port, url))  # the proxy that it went through is gone
    two_nodes.wait_clean()


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
