"""The plots of a run. A dot is one run and a bar is the median. The white background is readable on dark pages too."""

import statistics
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl

from tests.bench.goals import MANY, Results
from tests.bench.targets import GO_PEER, LOCAL, PEER, PEER_BEHIND, SPREAD

mpl.use("agg")
from matplotlib import pyplot
from matplotlib.axes import Axes

mpl.rcParams["svg.hashsalt"] = "relay"  # so that the same figures make the same file

COLOURS = {
    "relay, two nodes": "#1f5fa8",
    "relay, one node": "#5f9fd8",
    "relay, embedded": "#a9cdee",
    LOCAL: "#2f7d4f",
    SPREAD: "#8fc9a5",
    PEER: "#8c8c8c",
    PEER_BEHIND: "#c4c4c4",
    GO_PEER: "#c28f4e",
}
_STREAMS = ("one stream", *MANY)

#: A panel of a plot: the label of its axis with the unit, its measures, and its figures.
_Panel = tuple[str, tuple[str, ...], tuple[str, ...]]
_PLOTS: dict[str, tuple[str, tuple[_Panel, ...]]] = {
    "throughput": ("Streams at once: total throughput (more is better)", (("MB/s", _STREAMS, ("MB/s",)),)),
    "cpu": (
        "Streams at once: CPU seconds of all server processes for each GiB (less is better)",
        (("CPU s/GiB", _STREAMS, ("CPU s/GiB",)),),
    ),
    "small": (
        "1 KiB transfers, 32 at a time, and the first byte on an idle relay",
        (
            ("pairs/s (more is better)", ("small transfers",), ("pairs/s",)),
            ("ms, both sides done (less is better)", ("small transfers",), ("p50 ms", "p99 ms")),
            ("ms to the first byte (less is better)", ("first byte",), ("p50 ms", "p99 ms")),
        ),
    ),
}


def draw(results: Results, folder: Path, suffix: str) -> None:
    """Draw the plots `throughput`, `cpu` and `small` of what was measured, in the format of the suffix (svg or png)."""
    for name, (title, panels) in _PLOTS.items():
        shown = [(unit, [m for m in measures if m in results], figures) for unit, measures, figures in panels]
        shown = [panel for panel in shown if panel[1]]
        if shown:
            _draw(results, title, shown, folder / f"{name}.{suffix}")


def _draw(results: Results, title: str, panels: Sequence[tuple[str, Sequence[str], Sequence[str]]], path: Path) -> None:
    groups = [len(measures) * len(figures) for _, measures, figures in panels]
    figure, axes = pyplot.subplots(
        1, len(panels), figsize=(9, 3.6), squeeze=False, layout="constrained", width_ratios=[0.6 + n for n in groups]
    )
    for axis, (unit, measures, figures) in zip(axes[0], panels, strict=True):
        _panel(axis, results, measures, figures)
        axis.set_ylabel(unit)
    figure.suptitle(title, fontsize=11)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    figure.savefig(path, facecolor="white", dpi=110, metadata={"Date": None} if path.suffix == ".svg" else None)
    pyplot.close(figure)


def _panel(axis: Axes, results: Results, measures: Sequence[str], figures: Sequence[str]) -> None:
    """Draw a group of bars for each measure or figure, with one bar for each target."""
    groups = [(measure, figure) for measure in measures for figure in figures]
    for at, (measure, figure) in enumerate(groups):
        runs = results[measure]
        width = 0.84 / len(runs)
        for number, (target, of_target) in enumerate(runs.items()):
            place = at + (number - (len(runs) - 1) / 2) * width
            values = [run[figure] for run in of_target]
            middle = statistics.median(values)
            label = target if at == 0 else None
            axis.bar(place, middle, width * 0.92, color=COLOURS.get(target), label=label)
            axis.plot([place] * len(values), values, "o", color="#222222", markersize=2)
            axis.annotate(
                f"{middle:,.0f}" if middle >= 10 else f"{middle:.1f}",
                (place, max(values)),
                xytext=(0, 3),
                textcoords="offset points",
                ha="center",
                fontsize=7,
            )
    axis.set_xticks(range(len(groups)), [figure if len(figures) > 1 else measure for measure, figure in groups])
    axis.spines[["top", "right"]].set_visible(False)
    axis.margins(y=0.12)
    axis.set_ylim(bottom=0)
