"""Fixtures: the deployment, which is started once behind each balancer and made whole again before each test."""

import os
import socket
from collections.abc import Iterator
from typing import NoReturn

import pytest

from tests.compose.deployment import Deployment, why_not

#: Environment variable that makes these tests fail instead of being skipped. CI sets it: a skipped test shows nothing.
REQUIRED = "RELAY_TESTS_NEED_DOCKER"


@pytest.fixture(scope="session", params=["haproxy", "nginx"])
def deployment(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Run `docker-compose up` in a clean checkout."""
    if reason := why_not():
        _cannot(reason)
    deployment = Deployment(tmp_path_factory.mktemp(request.param) / "relay", request.param)
    deployment.down()  # remove what an interrupted run left behind
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
    """Yield the deployment with three nodes. Afterwards, check that the test has left no key of a transfer."""
    deployment.up()
    yield deployment
    if left_over := deployment.left_over():
        deployment.down()  # otherwise one failure would cause many others
    assert not left_over


def _cannot(reason: str) -> NoReturn:
    if os.environ.get(REQUIRED):
        pytest.fail(reason)
    pytest.skip(reason)
