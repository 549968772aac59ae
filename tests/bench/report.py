"""What the figures of many runs come to: medians, ratios of pairs, a table, plots and JSON."""

import json
import platform
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

from tests.bench.measures import Figures

mpl.use("svg")
from matplotlib import pyplot

#: Runs of one measure, by target, in the order of the rounds: what stands at the same place was run side by side.
Runs = Mapping[str, Sequence[Figures]]
#: What relay is compared with.
PEER = "piping-server"


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    model = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if "model name" in line
    ]
    return {
        "cpu": model[0] if model else platform.processor(),
        "cores": len(model),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def median(runs: Sequence[Figures], figure: str) -> float:
    return statistics.median(run[figure] for run in runs)


def ratio(runs: Runs, target: str, figure: str) -> float | None:
    """The median over all rounds of this target's figure over the peer's of the same round."""
    if PEER not in runs or target == PEER:
        return None
    pairs = [(ours[figure], theirs[figure]) for ours, theirs in zip(runs[target], runs[PEER], strict=True)]
    return statistics.median(ours / theirs for ours, theirs in pairs) if all(theirs for _, theirs in pairs) else None


def table(results: Mapping[str, Runs]) -> str:
    """All measures as Markdown: the median of each figure, and in brackets the ratio to the peer."""
    lines = []
    for measure, runs in results.items():
        figures = [figure for figure in next(iter(runs.values()))[0] if figure != "seconds"]
        lines += ["", f"**{measure}**", "", f"| | {' | '.join(figures)} |", "|---" * (len(figures) + 1) + "|"]
        for target, of_target in runs.items():
            cells = [_cell(median(of_target, figure), ratio(runs, target, figure)) for figure in figures]
            lines.append(f"| {target} | {' | '.join(cells)} |")
    return "\n".join(lines[1:])


def _cell(value: float, against_peer: float | None) -> str:
    digits = f"{value:,.0f}" if value >= 100 else f"{value:.2f}"
    return digits if against_peer is None else f"{digits} ({against_peer:.2f} ×)"


def plot(results: Mapping[str, Runs], figure: str, path: Path) -> None:
    """Each run of each target as a point, the medians as bars."""
    shown = {measure: runs for measure, runs in results.items() if figure in next(iter(runs.values()))[0]}
    if not shown:
        return
    chart, axes = pyplot.subplots(1, len(shown), figsize=(3.2 * len(shown), 3.6), squeeze=False, layout="constrained")
    for axis, (measure, runs) in zip(axes[0], shown.items(), strict=True):
        for place, (target, of_target) in enumerate(runs.items()):
            values = [run[figure] for run in of_target]
            axis.bar(place, statistics.median(values), color="#999999" if target == PEER else "#2f6fb2", width=0.7)
            axis.plot([place] * len(values), values, ".", color="black", markersize=4)
        axis.set_xticks(range(len(runs)), [target.replace(", ", "\n") for target in runs], rotation=60, fontsize=8)
        axis.set_title(measure, fontsize=9)
        axis.set_ylabel(figure)
    chart.savefig(path)
    pyplot.close(chart)


def write(results: Mapping[str, Runs], folder: Path) -> str:
    """Writes table, plots and JSON into the folder; answers the table."""
    folder.mkdir(parents=True, exist_ok=True)
    about = machine()
    head = f"{about['cpu']}, {about['cores']} cores, Linux {about['kernel']}, Python {about['python']}"
    text = f"{head}\n\n{table(results)}\n"
    (folder / "bench.md").write_text(text)
    (folder / "bench.json").write_text(json.dumps({"machine": about, "results": results}, indent=1) + "\n")
    plot(results, "MB/s", folder / "throughput.svg")
    plot(results, "CPU s/GiB", folder / "cpu.svg")
    return text
