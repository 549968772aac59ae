"""The figures that a run returns, and helpers that several measures share."""

import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tests.bench.targets import Target

KIB = 1024
MIB = 1024**2
GIB = 1024**3

#: The figures of one run, by name. Each name contains its unit.
Figures = dict[str, float]


@contextmanager
def timed(target: Target, figures: Figures) -> Iterator[None]:
    """Measure the block: add `seconds` by the clock, and `CPU s` of all server processes, including Redis."""
    cpu, began = target.cpu_seconds(), time.perf_counter()
    yield
    figures["seconds"] = time.perf_counter() - began
    figures["CPU s"] = target.cpu_seconds() - cpu


def percentiles(seconds: Sequence[float]) -> tuple[float, float]:
    """Return the median and the 99th percentile, in milliseconds."""
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    return cuts[49] * 1000, cuts[98] * 1000


def settled(target: Target) -> bool:
    """Return whether the target is almost idle, by its CPU time over half a second."""
    cpu = target.cpu_seconds()
    time.sleep(0.5)
    return target.cpu_seconds() - cpu < 0.1
