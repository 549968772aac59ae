"""Fixtures: three nodes over one real Redis, the ways to them, and a big file."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cluster import Cluster, over_redis, random_file
from tests.support.haproxy import HAProxy
from tests.support.nginx import Nginx
from tests.support.redis import RedisServer

MIB = 1024 * 1024
_IS_FULL = bool(os.environ.get("RELAY_TEST_FULL"))
#: Bytes of the big file. `RELAY_TEST_FULL=1` in the environment makes it as large as users' files are.
SIZE = 200_000_000 if _IS_FULL else 48_000_000
#: Bytes of the file that is transferred while nodes are killed.
HUGE = 1024 * MIB if _IS_FULL else SIZE
#: Bytes of the file that is sent through a balancer. After the last cut more must be left of it than the balancer and
#: the kernels around it hold (see `behind`): what they have taken counts as delivered, and cannot be asked for again.
LARGER = max(SIZE, 120_000_000)


@pytest.fixture(scope="session")
def three_nodes(redis_server: RedisServer) -> Iterator[Cluster]:
    with over_redis(redis_server, "abc") as cluster:
        yield cluster


@pytest.fixture
def cluster(three_nodes: Cluster) -> Iterator[Cluster]:
    yield from three_nodes.checked()


@pytest.fixture(scope="session")
def behind(redis_server: RedisServer) -> Iterator[Cluster]:
    """Start nodes for balancers. A balancer and the kernels around it hold more than 8 MiB for a client that is slow.

    Measured: up to 8 MiB with HAProxy, and up to 40 MiB with nginx, which takes all that its kernel has room for.
    """
    with over_redis(redis_server, "de", rewind=48 * MIB) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def haproxy(behind: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HAProxy]:
    with HAProxy(behind.nodes, tmp_path_factory.mktemp("haproxy")) as balancer:
        yield balancer


@pytest.fixture(scope="session")
def nginx(behind: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    with Nginx(behind.nodes, tmp_path_factory.mktemp("nginx")) as balancer:
        yield balancer


@pytest.fixture(scope="session")
def big_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Make a file of `SIZE` random bytes, and delete it after the session."""
    path = random_file(tmp_path_factory.mktemp("data") / "big.bin", SIZE)
    yield path
    path.unlink()


@pytest.fixture
def huge_file(tmp_path: Path) -> Path:
    """Make a file of `HUGE` random bytes."""
    return random_file(tmp_path / "huge.bin", HUGE)


@pytest.fixture(scope="session")
def larger_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Make a file of `LARGER` random bytes, and delete it after the session."""
    path = random_file(tmp_path_factory.mktemp("data") / "larger.bin", LARGER)
    yield path
    path.unlink()
