"""How large a cluster has to be, computed from what `scale` has measured. Pure, but for the file of results."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.figures import GIB, KIB, MIB

#: The results of the last run.
RESULTS = Path(__file__).parent / "results" / "scale.json"
#: The share of a core that may be busy.
_BUSY = 0.6
_PARTS = ("nodes", "Redis", "HAProxy")


@dataclass(frozen=True)
class Shape:
    """What a cluster consists of. `masters` are those of a Redis Cluster; 0 means one server that is none."""

    nodes: int
    #: Whether HAProxy sends both clients of a transfer to one node.
    hint: bool = True
    masters: int = 0

    @property
    def name(self) -> str:
        redis = f"Redis Cluster of {self.masters}" if self.masters else "one Redis"
        through = "within a node" if self.hint else "through Redis"
        return f"{self.nodes} node{'s' * (self.nodes > 1)}, {redis}, {through}"


#: The shapes by whose figures a cluster is sized: the bytes of which meet within a node, and those that do not.
WITHIN, THROUGH = Shape(nodes=4), Shape(nodes=4, hint=False)
#: The share of the latter's transfers that pass through Redis. The others meet on one node by chance.
_APART = 1 - 1 / THROUGH.nodes
#: The shape with which uploads that wait are measured.
WAITING = Shape(nodes=2)

#: The rates to size for, in Gbit/s, and what ends first there.
_RATES = (
    (1, "nothing: one node would do, the second is there for the day on which the first one dies"),
    (
        10,
        "a node, which is one process and uses one core: start more of them. Without the hint the thread of Redis is "
        "next: use a Redis Cluster",
    ),
    (
        100,
        "the balancer's line, which carries each byte twice: put several balancers behind one name of the DNS, or "
        "behind a router that spreads connections. Then Redis, if the hint fails: as many masters as the table says",
    ),
)
#: The uploads that wait, and what ends first there.
_WAITS = (
    (1_000, "nothing"),
    (
        100_000,
        "the balancer's descriptors: two for each client, and `fd-hard-limit` in haproxy.cfg allows 65,536. Then the "
        "28,000 ports from which one balancer can reach one address of a node, so have four nodes or more; and each "
        "node's limit of open files (`ulimit -Hn`)",
    ),
)


def load() -> dict[str, Any]:
    """Return the results of the last run."""
    results: dict[str, Any] = json.loads(RESULTS.read_text())
    return results


def measured(figures: Mapping[str, Mapping[str, float]]) -> str:
    """Return a Markdown table of what each part spent in each shape."""
    lines = [
        "| cluster | CPU s/GiB: nodes | Redis | HAProxy | CPU ms a transfer of 1 KiB: nodes | Redis | HAProxy |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, of_shape in figures.items():
        cells = [f"{of_shape[f'{part}, CPU {unit}']:.2f}" for unit in ("s/GiB", "ms/pair") for part in _PARTS]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def cores(figures: Mapping[str, float], part: str, gbit: float) -> float:
    """Return how many cores of a part are busy at a rate of so many Gbit/s."""
    return gbit * 1e9 / 8 / GIB * figures[f"{part}, CPU s/GiB"]


def _needed(busy: float, least: int = 1) -> str:
    return f"{max(least, math.ceil(busy / _BUSY)):,}"


def rates(figures: Mapping[str, Mapping[str, float]]) -> str:
    """Return a Markdown table of what each rate needs."""
    within, through = figures[WITHIN.name], figures[THROUGH.name]
    lines = [
        "| bytes that pass | nodes: within a node | through Redis | masters of Redis: within a node | through Redis "
        "| threads of HAProxy | what ends first |",
        "|---|---|---|---|---|---|---|",
    ]
    for gbit, limit in _RATES:
        needs = [_needed(cores(of, "nodes", gbit), 2) for of in (within, through)]
        needs += [_needed(cores(within, "Redis", gbit)), _needed(cores(through, "Redis", gbit) / _APART)]
        threads = max(cores(of, "HAProxy", gbit) for of in (within, through))
        lines.append(f"| {gbit} Gbit/s | {' | '.join(needs)} | {_needed(threads)} | {limit} |")
    return "\n".join(lines)


def waits(figures: Mapping[str, Mapping[str, float]]) -> str:
    """Return a Markdown table of what so many waiting uploads need."""
    each = figures[WAITING.name]
    lines = [
        "| uploads that wait | memory: nodes | Redis | HAProxy | cores: nodes | Redis | HAProxy | what ends first |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for count, limit in _WAITS:
        memory = [f"{count * each[f'{part}, KiB/waiting'] * KIB / MIB:,.0f} MiB" for part in _PARTS]
        busy = [f"{count * each[f'{part}, CPU ms/s/waiting'] / 1000:.2f}" for part in _PARTS]
        lines.append(f"| {count:,} | {' | '.join(memory + busy)} | {limit} |")
    return "\n".join(lines)


def page() -> str:
    """Return the tables for operators, and how they were computed."""
    results = load()
    figures, about = results["figures"], results["machine"]
    within, through = figures[WITHIN.name], figures[THROUGH.name]
    node, redis = cores(within, "nodes", 1), cores(through, "Redis", 1) / _APART
    how = (
        f"The arithmetic: 1 Gbit/s is {1e9 / 8 / GIB:.3f} GiB/s, so the nodes are busy for "
        f"{1e9 / 8 / GIB:.3f} × {within['nodes, CPU s/GiB']:.2f} = {node:.3f} of a core if both clients are on one "
        "node. Without the hint, about every fourth transfer of four nodes meets on one node by chance, so Redis is "
        f"busy for {1e9 / 8 / GIB:.3f} × {through['Redis, CPU s/GiB']:.2f} / {_APART} = {redis:.3f} of a core if none "
        f"do. A core may be busy for {_BUSY * 100:.0f} %; a node and a master use one each. There are two nodes at "
        "least."
    )
    where = (
        f"Medians of {results['rounds']} rounds on {about['cpu']}, {about['cores']} cores, Linux {about['Linux']}, "
        f"Python {about['Python']}, Redis {about['Redis']}, over loopback; other programs had "
        f"{about['busy before, % of all cores']:.0f} % of the cores when it began, which makes the figures too high "
        "rather than too low. A network card costs interrupts on top of that."
    )
    return "\n\n".join([rates(figures), how, waits(figures), measured(figures), where])
