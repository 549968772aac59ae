"""The deployment for these tests: started once behind each balancer, whole again before each test."""

import os
import socket
from collections.abc import Iterator
from typing import NoReturn

import pytest

from tests.compose.deployment import Deployment, why_not

#: Set where these tests must not be skipped, in CI: a skipped test shows nothing.
REQUIRED = "RELAY_TESTS_NEED_DOCKER"


@pytest.fixture(scope="session", params=["haproxy", "nginx"])
def deployment(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """`docker-compose up` from a clean checkout."""
    if reason := why_not():
        _cannot(reason)
    deployment = Deployment(tmp_path_factory.mktemp(request.param) / "relay", request.param)
    deployment.down()  # what an interrupted run left
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", 4000)) == 0:
            _cannot("port 4000 is taken: the compose cluster was not tested")
    deployment.compose("build")
    try:
        deployment.up()
        yield deployment
    finally:
        deployment.down()


@pytest.fixture
def cluster(deployment: Deployment) -> Iterator[Deployment]:
    """Three nodes, whole, and nothing left over by the test."""
    deployment.up()
    yield deployment
    if left_over := deployment.left_over():
        deployment.down()  # or one failure would be the cause of many
    assert not left_over


def _cannot(reason: str) -> NoReturn:
    if os.environ.get(REQUIRED):
        pytest.fail(reason)
    pytest.skip(reason)
