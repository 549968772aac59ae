"""The cost of a cluster's parts, and how large a cluster has to be by that: they are measured, and computed right."""

from pathlib import Path

import pytest

from tests.bench import sizing
from tests.bench.scale import measure
from tests.bench.sizing import THROUGH, WAITING, WITHIN, Shape
from tests.support.redis import newest

#: Figures that are easy to compute with: 8.59 Gbit/s are one GiB a second.
WITHIN_COSTS = {"nodes, CPU s/GiB": 0.6, "Redis, CPU s/GiB": 0.0, "HAProxy, CPU s/GiB": 1.2}
THROUGH_COSTS = {"nodes, CPU s/GiB": 1.8, "Redis, CPU s/GiB": 0.3, "HAProxy, CPU s/GiB": 0.6}
FIGURES = {WITHIN.name: WITHIN_COSTS, THROUGH.name: THROUGH_COSTS}


def test_every_part_of_a_cluster_is_measured(tmp_path: Path) -> None:
    newest("the cost of a cluster was not measured")
    figures = measure(Shape(nodes=2, hint=False, masters=2), tmp_path, quick=True)
    units = ("s/GiB", "ms/pair")
    parts = {f"{part}, CPU {unit}" for part in ("nodes", "Redis", "HAProxy") for unit in units}
    assert {*figures} == parts | {f"busiest Redis, % of {unit}" for unit in units} | {"MB/s", "pairs/s"}
    assert all(value > 0 for value in figures.values())
    # Bytes pass through the nodes and through Redis. In a quick run one master may have all tokens.
    assert figures["nodes, CPU s/GiB"] > figures["Redis, CPU s/GiB"]
    assert 50 <= figures["busiest Redis, % of s/GiB"] <= 100


def test_a_rate_needs_as_many_processes_as_it_keeps_busy() -> None:
    assert sizing.cores(THROUGH_COSTS, "nodes", 8.589934592) == pytest.approx(1.8)
    rows = [[cell.strip() for cell in row.split("|")] for row in sizing.rates(FIGURES).splitlines()[2:]]
    # 100 Gbit/s are 11.64 GiB/s, and a core may be busy for 60 %: so 6.98, 20.96, 0, 4.66 (three quarters of the bytes
    # have passed through Redis) and 13.97 divided by 0.6.
    assert [row[1:7] for row in rows] == [
        ["1 Gbit/s", "2", "2", "1", "1", "1"],
        ["10 Gbit/s", "2", "4", "1", "1", "3"],
        ["100 Gbit/s", "12", "35", "1", "8", "24"],
    ]


def test_uploads_that_wait_need_memory_and_some_cpu() -> None:
    each = {"nodes, KiB/waiting": 32.0, "Redis, KiB/waiting": 1.0, "HAProxy, KiB/waiting": 4.0}
    each |= {"nodes, CPU ms/s/waiting": 0.002, "Redis, CPU ms/s/waiting": 0.0, "HAProxy, CPU ms/s/waiting": 0.001}
    last = [cell.strip() for cell in sizing.waits({WAITING.name: each}).splitlines()[-1].split("|")]
    assert last[1:8] == ["100,000", "3,125 MiB", "98 MiB", "391 MiB", "0.20", "0.00", "0.10"]
