"""The histogram of seconds: Prometheus is told the same as by that of prometheus_client."""

import pytest
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.exposition import generate_latest

from relay.metrics import Seconds

BOUNDS = (0.1, 1, 60)


@pytest.mark.parametrize("seen", [(), (0,), (0.1, 0.1001, 1, 59, 60, 61, 1e9)])
def test_a_histogram_says_what_that_of_prometheus_client_says(seen: tuple[float, ...]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    one, other = (
        Seconds("x_seconds", "Seconds.", BOUNDS),
        Histogram("x_seconds", "Seconds.", buckets=BOUNDS, registry=theirs),
    )
    ours.register(one)
    for seconds in seen:
        one.observe(seconds)
        other.observe(seconds)
    assert generate_latest(ours) == generate_latest(theirs)
