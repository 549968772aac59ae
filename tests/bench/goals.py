"""The goals, and the figures of the runs that are compared with them."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tests.bench.figures import Figures
from tests.bench.targets import LOCAL, PEER, PEER_BEHIND, SPREAD

#: The runs of one measure, by target, in the order of the rounds. Runs at the same index ran side by side.
Runs = Mapping[str, Sequence[Figures]]
#: The runs of all measures, by measure.
Results = Mapping[str, Runs]
#: A function that computes the figure of a goal, or returns None if it was not measured.
Value = Callable[[Results], float | None]

TWO, ONE, EMBEDDED = "relay, two nodes", "relay, one node", "relay, embedded"
#: The measures of many streams at once.
MANY = ("10 streams", "50 streams", "200 streams")


def number(value: float) -> str:
    """Format the value with three significant digits, or with more for whole numbers."""
    for least, digits in ((99.95, 0), (9.995, 1)):
        if abs(value) >= least:
            return f"{value:,.{digits}f}"
    return f"{value:.2f}"


def median(runs: Sequence[Figures], figure: str) -> float:
    return statistics.median(run[figure] for run in runs)


def paired(ours: Sequence[Figures], theirs: Sequence[Figures], figure: str) -> float | None:
    """Return the median of the rounds' ratios of our figure to theirs, or None if one of theirs is 0."""
    pairs = [(mine[figure], other[figure]) for mine, other in zip(ours, theirs, strict=True)]
    return statistics.median(mine / other for mine, other in pairs) if all(other for _, other in pairs) else None


def ratio(runs: Runs, target: str, figure: str) -> float | None:
    """Return the ratio of the target's figure to the peer's, or None if there is nothing to compare.

    A target behind HAProxy is compared with the peer behind HAProxy.
    """
    peer = PEER_BEHIND if target in (LOCAL, SPREAD) else PEER
    if peer not in runs or target in (PEER, PEER_BEHIND):
        return None
    return paired(runs[target], runs[peer], figure)


@dataclass(frozen=True)
class Goal:
    """One line of the summary. Without a `limit`, the figure is only stated."""

    measure: str
    unit: str
    value: Value
    limit: float | None = None
    #: Whether the limit is a minimum; otherwise it is a maximum.
    at_least: bool = False

    @property
    def to_reach(self) -> str:
        return "" if self.limit is None else f"{'≥' if self.at_least else '≤'} {self.limit:g} {self.unit}".rstrip()

    def measured(self, value: float) -> str:
        return f"{number(value)} {self.unit}".rstrip()

    def verdict(self, value: float) -> str:
        """Return whether the goal was reached, or an empty string if the figure is only stated."""
        if self.limit is None:
            return ""
        return "reached" if (value >= self.limit if self.at_least else value <= self.limit) else "**not reached**"


def _median(measure: str, target: str, figure: str) -> Value:
    def value(results: Results) -> float | None:
        return median(results[measure][target], figure) if measure in results else None

    return value


def _ratio(measure: str, target: str, figure: str) -> Value:
    def value(results: Results) -> float | None:
        return ratio(results[measure], target, figure) if measure in results else None

    return value


def _scaling(results: Results) -> float | None:
    """Return the ratio of the total throughput at 200 streams to that at 10."""
    few, many = results.get("10 streams"), results.get("200 streams")
    return paired(many[TWO], few[TWO], "MB/s") if few and many else None


def _fairness(target: str) -> Value:
    """Return a function that computes the lowest fairness of those at 10, 50 and 200 streams."""

    def value(results: Results) -> float | None:
        measured = [results[measure] for measure in MANY if target in results.get(measure, {})]
        return min((median(runs[target], "fairness") for runs in measured), default=None)

    return value


def _growth(results: Results) -> float | None:
    """Return by how many MiB the nodes and Redis together grow from the first half of the long stream to the second."""
    if not (runs := results.get("long stream")):
        return None
    halves = [
        sum(median(runs[TWO], f"{what} MiB, {half} half") for what in ("node", "Redis")) for half in ("first", "second")
    ]
    return halves[1] - halves[0]


GOALS = (
    Goal(f"one stream, two nodes: MB/s, beside {PEER}", "×", _ratio("one stream", TWO, "MB/s"), 0.9, at_least=True),
    Goal("the same: CPU of both nodes and Redis", "s/GiB", _median("one stream", TWO, "CPU s/GiB"), 3.0),
    Goal(
        "one stream, both clients on one node, Redis: MB/s", "×", _ratio("one stream", ONE, "MB/s"), 0.75, at_least=True
    ),
    Goal("one stream, embedded store: MB/s", "×", _ratio("one stream", EMBEDDED, "MB/s"), 0.75, at_least=True),
    Goal(
        "1 KiB transfers, 32 at a time, two nodes: pairs/s",
        "×",
        _ratio("small transfers", TWO, "pairs/s"),
        0.7,
        at_least=True,
    ),
    Goal("the same: CPU of both nodes and Redis", "ms/pair", _median("small transfers", TWO, "CPU ms/pair"), 0.8),
    Goal("the same: latency until both are done, p99", "ms", _median("small transfers", TWO, "p99 ms")),
    Goal(
        "1 KiB transfers, one node over Redis: pairs/s",
        "×",
        _ratio("small transfers", ONE, "pairs/s"),
        0.6,
        at_least=True,
    ),
    Goal(
        "1 KiB transfers, embedded store: pairs/s",
        "×",
        _ratio("small transfers", EMBEDDED, "pairs/s"),
        0.5,
        at_least=True,
    ),
    Goal("first byte after the downloader connects, two nodes, p50", "ms", _median("first byte", TWO, "p50 ms"), 2),
    Goal("the same, p99", "ms", _median("first byte", TWO, "p99 ms"), 3),
    Goal("200 streams at once, two nodes: MB/s, beside those of 10", "×", _scaling, 0.85, at_least=True),
    Goal("10, 50 and 200 at once: fairness (slowest over fastest), the least", "", _fairness(TWO), 0.5, at_least=True),
    Goal("the same, one node over Redis", "", _fairness(ONE), 0.5, at_least=True),
    Goal("the same, embedded store", "", _fairness(EMBEDDED), 0.5, at_least=True),
    Goal(
        "one stream, cluster of three behind HAProxy: MB/s",
        "×",
        _ratio("one stream", LOCAL, "MB/s"),
        1.0,
        at_least=True,
    ),
    Goal("10 streams, the same: MB/s", "×", _ratio("10 streams", LOCAL, "MB/s"), 1.0, at_least=True),
    Goal("1 KiB transfers, the same: pairs/s", "×", _ratio("small transfers", LOCAL, "pairs/s"), 1.0, at_least=True),
    Goal("one stream, the same without the locality hint: MB/s", "×", _ratio("one stream", SPREAD, "MB/s")),
    Goal(
        "an upload that waits, two nodes: memory of the node", "KiB", _median("waiting uploads", TWO, "node KiB each")
    ),
    Goal("the same: memory of Redis", "KiB", _median("waiting uploads", TWO, "Redis KiB each")),
    Goal("all of them: connections to Redis", "", _median("waiting uploads", TWO, "Redis connections")),
    Goal("the same: CPU", "% of a core", _median("waiting uploads", TWO, "waiting, % of a core")),
    Goal(
        "a stream that nobody reads, two nodes: memory of Redis",
        "MiB",
        _median("streams held", TWO, "Redis MiB each"),
        2.25,
    ),
    Goal("the same: memory of the nodes", "MiB", _median("streams held", TWO, "node MiB each")),
    Goal("10 GiB in one stream, two nodes: memory, second half less first", "MiB", _growth, 1),
    Goal("a node's start, from its first import to ready", "s", _median("start", TWO, "s to ready"), 1),
)
