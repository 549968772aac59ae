"""Fixtures: Helm, in every version that there is."""

import pytest

from tests.deploy.helm import Helm, cannot, programs


@pytest.fixture(scope="session", params=programs() or [""])
def helm(request: pytest.FixtureRequest) -> Helm:
    """Return one version of Helm, for the tests that show that they agree."""
    if not request.param:
        cannot("no helm on PATH, and RELAY_TEST_HELM names no folder of .ci/helm: the chart was not tested")
    return Helm(request.param)


@pytest.fixture(scope="session")
def newest_helm() -> Helm:
    """Return the newest Helm, for the tests that are about relay."""
    if not (found := programs()):
        cannot("no helm on PATH, and RELAY_TEST_HELM names no folder of .ci/helm: the chart was not tested")
    return Helm(found[-1])
