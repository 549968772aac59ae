"""Summaries of the figures of many runs: medians, ratios of runs side by side, tables and JSON."""

import json
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from tests.bench.figures import GIB, Figures
from tests.bench.goals import GOALS, Results, Runs, median, number, ratio
from tests.bench.targets import PEER, PEER_PACKAGE
from tests.support.pages import with_part
from tests.support.redis import servers

#: Words in the names of figures that have no ratio to the peer, because neither a lower nor a higher one is better.
_WITHOUT_RATIO = ("fairness", "uploads", "client", "Redis", "half")
_HOW = f"The median of all rounds, and in brackets that of the rounds' ratios to {PEER}:"


def machine() -> dict[str, Any]:
    """Return the machine and the programs of the measurements, and how busy other programs keep the machine."""
    cpus = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return {
        "busy before, % of all cores": psutil.cpu_percent(interval=2),
        "cpu": cpus[0] if cpus else platform.processor(),
        "cores": psutil.cpu_count(),
        "memory GiB": round(psutil.virtual_memory().total / GIB),
        "Linux": platform.release(),
        "Python": platform.python_version(),
        "Redis": ".".join(map(str, max(servers(), default=()))),
        "Node.js": _version("node").removeprefix("v"),
        "curl": _version("curl").split()[1],
    }


def _version(program: str) -> str:
    try:
        return subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    except FileNotFoundError:
        return "- -"


def headline(about: Mapping[str, Any]) -> str:
    """Describe the machine in one sentence."""
    return (
        f"{about['cpu']}, {about['cores']} cores with the clients on them too, {about['memory GiB']} GiB, Linux "
        f"{about['Linux']}, Python {about['Python']}, Redis {about['Redis']}, Node.js {about['Node.js']}, "
        f"curl {about['curl']}; {PEER_PACKAGE}; other programs had {about['busy before, % of all cores']:.0f} % of "
        "the cores when it began."
    )


def summary(results: Results) -> str:
    """Return a Markdown table of the goals and what was measured."""
    lines = ["| measure | to reach | measured | |", "|---|---|---|---|"]
    for goal in GOALS:
        if (value := goal.value(results)) is not None:
            lines.append(f"| {goal.measure} | {goal.to_reach} | {goal.measured(value)} | {goal.verdict(value)} |")
    return "\n".join(lines)


def table(results: Results) -> str:
    """Return a Markdown table of all figures: the median of all rounds, and in brackets the ratio to the peer."""
    targets = list(dict.fromkeys(target for runs in results.values() for target in runs))
    lines = [f"| | {' | '.join(targets)} |", "|---" * (len(targets) + 1) + "|"]
    for measure, runs in results.items():
        for figure in [figure for figure in next(iter(runs.values()))[0] if figure != "seconds"]:
            cells = [_cell(runs, target, figure) if target in runs else "" for target in targets]
            lines.append(f"| {measure}: {figure} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(runs: Runs, target: str, figure: str) -> str:
    value = number(median(runs[target], figure))
    against = None if any(word in figure for word in _WITHOUT_RATIO) else ratio(runs, target, figure)
    return value if against is None else f"{value} ({against:.2f} ×)"


def write(
    about: Mapping[str, Any],
    results: Mapping[str, Mapping[str, Sequence[Figures]]],
    folder: Path,
    *,
    quick: bool = False,
) -> str:
    """Write the tables and the JSON into the folder, and return the tables."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = [headline(about), summary(results), _HOW, table(results)]
    text = "\n\n".join(["A quick run: it shows that all works. Its figures mean nothing."] * quick + parts) + "\n"
    (folder / "bench.md").write_text(text)
    (folder / "bench.json").write_text(json.dumps({"machine": about, "results": results}, indent=1) + "\n")
    return text


def into_readme(readme: str, about: Mapping[str, Any], results: Results) -> str:
    """Return the page with this run's summary between `<!-- bench -->` and `<!-- /bench -->`."""
    return with_part(readme, "bench", f"{summary(results)}\n\n{headline(about)}")
