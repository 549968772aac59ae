"""Fixtures: each test that uses `cluster` runs against one node on the embedded store, and against two nodes over a
real Redis."""

from collections.abc import Iterator

import pytest

from tests.support.cluster import Cluster, alone, over_redis

#: Low limits keep the tests short. An upload waits a second for a downloader that has left, which none of these come
#: back from.
LIMITS: dict[str, object] = {
    "upload_wait": 4,
    "rejoin_wait": 1,
    "download_wait_max": 60,
    "max_upload": 64 * 1024 * 1024,
}


@pytest.fixture(scope="session", params=["embedded", "cluster"])
def shared_cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    server = request.getfixturevalue("redis_server") if request.param == "cluster" else None
    with over_redis(server, "ab", **LIMITS) if server else alone(**LIMITS) as cluster:
        yield cluster


@pytest.fixture
def cluster(shared_cluster: Cluster) -> Iterator[Cluster]:
    yield from shared_cluster.checked()


@pytest.fixture
def token(cluster: Cluster) -> str:
    return cluster.token()
