"""The metrics that this process records as things happen, for Prometheus.

Numbers that the node keeps anyway are read when Prometheus asks: see `reports.NodeCollector`. Names follow Prometheus's
conventions: base units (seconds, bytes), and `_total` for what only grows. Labels have few values, such as outcomes,
reasons and kinds of errors; never a token, a name or an address. Only operators see names of secrets.
"""

import math
import platform
from bisect import bisect_left
from collections.abc import Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter, Gauge, Info, ProcessCollector, disable_created_metrics
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from relay import __version__
from relay.errors import Error

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each counter, which nobody uses

_WAITS = (0.1, 0.5, 1, 2, 5, 15, 30, 60, 120, 300, 600)
_TRANSFERS = (0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 4 * 3600)
_ROUND_TRIPS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2)


class Seconds(Collector):
    """A histogram of seconds. That of prometheus_client also takes two locks for each value; here is one thread."""

    def __init__(self, name: str, meaning: str, bounds: tuple[float, ...]) -> None:
        self._name = name
        self._meaning = meaning
        #: Upper bounds, each of which counts as below itself.
        self._bounds = (*bounds, math.inf)
        self._counts = [0.0] * len(self._bounds)
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self._sum += seconds

    def collect(self) -> Iterator[HistogramMetricFamily]:
        buckets = list(zip(map(floatToGoString, self._bounds), accumulate(self._counts), strict=True))
        yield HistogramMetricFamily(self._name, self._meaning, buckets=buckets, sum_value=self._sum)

    def describe(self) -> Iterator[HistogramMetricFamily]:
        return self.collect()


class Metrics:
    """The metrics of one app, in a registry of their own, so that two apps in one process count separately."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        #: What only operators may see.
        self.private = CollectorRegistry()
        ProcessCollector(registry=registry)
        Info("relay_build", "What runs here", registry=registry).info(
            {"version": __version__, "python": platform.python_version()}
        )

        def seconds(name: str, meaning: str, bounds: tuple[float, ...]) -> Seconds:
            histogram = Seconds(name, meaning, bounds)
            registry.register(histogram)
            return histogram

        self.tokens = Counter("relay_tokens_made", "Tokens made", registry=registry)
        self.tokens_of = Counter(
            "relay_tokens_made_by_secret", "Tokens made with each named secret", ["secret"], registry=self.private
        )
        self.wait_seconds = seconds(
            "relay_wait_seconds", "Seconds that uploads waited until a downloader joined", _WAITS
        )
        self.transfer_seconds = seconds(
            "relay_transfer_seconds", "Seconds that uploads streamed, whatever came of it", _TRANSFERS
        )
        self.redis_seconds = seconds(
            "relay_redis_seconds", "Seconds that a round trip to Redis took, of those that do not block", _ROUND_TRIPS
        )
        self.redis_errors = Counter(
            "relay_redis_errors", "Attempts to reach Redis that failed", ["error"], registry=registry
        )
        self.redis_evicts = Gauge(
            "relay_redis_evicts", "1 if Redis throws keys away when its memory is full, otherwise 0", registry=registry
        )
        self.rejections = Counter(
            "relay_rejections", "Requests that were answered with an error", ["reason"], registry=registry
        )
        self.everything = CollectorRegistry()
        self.everything.register(registry)
        self.everything.register(self.private)
        for error in Error:  # a rate misses the first step of a series that did not exist before
            self.rejections.labels(error.type)
