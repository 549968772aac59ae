"""`python -m tests.bench`: relay and piping-server, measured the same way, alternating in one run.

The result is the ratio of what was measured side by side; the absolute figures hold for this machine alone, which the
clients share with the servers.
"""

import argparse
import contextlib
import os
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.bench import measures, report
from tests.bench.measures import GIB, Figures
from tests.bench.targets import Target, piping_server, relay

Measure = Callable[[Target], Figures]

#: Measures whose figures are steady, and which take long.
_ONCE = {"waiting uploads", "memory over a long stream"}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a minute: small volumes, one round; shows that it works")
    parser.add_argument("--rounds", type=int, default=5, help="rounds, each target once in each [%(default)s]")
    parser.add_argument("--out", type=Path, default=Path("bench-results"), help="folder for results [%(default)s]")
    parser.add_argument("--only", help="measures whose name contains this")
    options = parser.parse_args()
    rounds = 1 if options.quick else options.rounds
    with contextlib.ExitStack() as stack, tempfile.TemporaryDirectory() as folder:
        targets = [
            stack.enter_context(relay("relay, two nodes", nodes=2)),
            stack.enter_context(relay("relay, one node", nodes=1)),
            stack.enter_context(relay("relay, embedded", nodes=1, embedded=True)),
        ]
        if peer := stack.enter_context(piping_server()):
            targets.append(peer)
        else:
            print("no npm here: piping-server is not measured, so there are no ratios")
        results = {
            name: _alternate(name, measure, targets, rounds if name not in _ONCE else 1)
            for name, measure in _measures(Path(folder), quick=options.quick).items()
            if not options.only or options.only in name
        }
    print(report.write(results, options.out))


def _measures(folder: Path, *, quick: bool) -> dict[str, Measure]:
    total = GIB // 16 if quick else GIB

    def source(size: int) -> Path:
        path = folder / f"source-{size}"
        path.touch()
        os.truncate(path, size)  # sparse: its bytes cost no disk
        return path

    def streams(count: int, volume: int) -> Measure:
        return partial(measures.streams, source=source(volume // count), count=count)

    return {
        "one stream": streams(1, total),
        **{f"{count} streams at once": streams(count, 2 * total) for count in (10, 50, 200)},
        "small transfers": partial(measures.small, count=200 if quick else 3000),
        "first byte": partial(measures.first_byte, count=30 if quick else 300),
        "waiting uploads": partial(measures.waiting, count=500 if quick else 10_000),
        "memory over a long stream": partial(measures.memory, source=source(total if quick else 10 * GIB)),
        "start": measures.start,
    }


def _alternate(name: str, measure: Measure, targets: list[Target], rounds: int) -> dict[str, list[Figures]]:
    """Every target once in each round, in turns forwards and backwards."""
    runs: dict[str, list[Figures]] = {target.name: [] for target in targets}
    for number in range(rounds):
        for target in targets if number % 2 == 0 else reversed(targets):
            figures = measure(target)
            print(
                f"{name}, {target.name}:", ", ".join(f"{key} {value:.4g}" for key, value in figures.items()), flush=True
            )
            runs[target.name].append(figures)
    return runs


if __name__ == "__main__":
    main()
