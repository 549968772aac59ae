"""`python -m tests.bench`: measure relay and piping-server in the same way, alternating in one run.

The result is the ratio of figures measured side by side. The absolute figures hold for this machine only, which the
clients share with the servers.
"""

import argparse
import contextlib
import os
import resource
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from subprocess import SubprocessError

import httpx
import psutil
import redis

from tests.bench import plots, report, small, streams, waiting
from tests.bench.figures import GIB, MIB, Figures
from tests.bench.targets import BrokenError, Kind, Target, kinds

#: The exceptions that a broken target or client raises. Any other exception is a bug of this harness.
_BROKEN = (BrokenError, AssertionError, OSError, SubprocessError, httpx.HTTPError, psutil.Error, redis.RedisError)

#: The signals received that end the run. They are also checked before each measurement, because Python ignores a
#: SystemExit that is raised while a `__del__` method runs.
_ended_by: list[str] = []


@dataclass(frozen=True)
class Measure:
    name: str
    run: Callable[[Target], Figures]
    #: Whether it runs alone and once on a target that has just been started, because it measures memory. Other measures
    #: run in rounds, alternating between the targets.
    afresh: bool = False
    #: Number of runs of each target before the first round, which do not count. Node.js gets 20 % faster in its first
    #: two GiB.
    warm: int = 1


def main() -> None:
    options = _options()
    prepare()
    try:
        with sources() as folder, kinds(options.go_piping_server) as all_kinds:
            about = report.machine()
            results = _measure(_measures(folder, quick=options.quick), all_kinds, options)
    except BrokenError as error:
        sys.exit(f"tests.bench: {error}")
    if not results:
        sys.exit(f"tests.bench: no measure has {' or '.join(options.only)} in its name")
    print("\n" + report.write(about, results, options.out, quick=options.quick))
    plots.draw(results, options.out, options.plots)
    if options.readme:
        options.readme.write_text(report.into_readme(options.readme.read_text(), about, results))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a minute: small volumes, one round; shows that it works")
    parser.add_argument("--rounds", type=int, default=5, help="rounds; each runs every target once [%(default)s]")
    parser.add_argument("--out", type=Path, default=Path("bench-results"), help="folder for results [%(default)s]")
    parser.add_argument("--only", action="append", help="only measures whose name contains this; may be repeated")
    parser.add_argument("--readme", type=Path, help="a README whose summary is to be that of this run")
    parser.add_argument("--plots", choices=("svg", "png"), default="svg", help="format of the plots [%(default)s]")
    parser.add_argument(
        "--go-piping-server",
        type=Path,
        metavar="PATH",
        help="measure this, too: the folder of its source, or the program",
    )
    options = parser.parse_args()
    if options.quick and options.readme:
        parser.error("the figures of a quick run say nothing, so they are not for a README")
    if options.go_piping_server is not None and not options.go_piping_server.exists():
        parser.error(f"there is no {options.go_piping_server}")
    if options.rounds < 1:
        parser.error("at least one round")
    return options


def prepare() -> None:
    """Make signals end the run cleanly, raise the limit on open files for all clients, and check that curl is there."""
    for number in (signal.SIGINT, signal.SIGTERM):  # SIGINT too, because a shell makes background jobs ignore it
        signal.signal(number, _end)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if not shutil.which("curl"):
        sys.exit("tests.bench: no curl on PATH")


def _end(number: int, _: object) -> None:
    _ended_by.append(signal.Signals(number).name)
    sys.exit(f"tests.bench: ended by {_ended_by[0]}")


@contextlib.contextmanager
def sources() -> Iterator[Path]:
    """Make a folder for files of zeros, in memory if possible. There, reading a hole allocates no pages."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(
        prefix="relay-bench-", dir=shared if os.access(shared, os.W_OK) else None
    ) as folder:
        yield Path(folder)


def zeros(folder: Path, size: int) -> Path:
    """Make a file of `size` zeros in the folder."""
    path = folder / str(size)
    path.touch()
    os.truncate(path, size)
    return path


def _measures(folder: Path, *, quick: bool) -> list[Measure]:
    """Return all measures. Many streams at once carry twice the volume of one stream."""
    total = 64 * MIB if quick else GIB

    def at_once(count: int, volume: int) -> Callable[[Target], Figures]:
        return partial(streams.streams, source=zeros(folder, volume // count), count=count)

    return [
        Measure("one stream", at_once(1, total), warm=2),
        *(Measure(f"{count} streams", at_once(count, 2 * total)) for count in (10, 50, 200)),
        Measure("small transfers", partial(small.small, count=200 if quick else 3000)),
        Measure("first byte", partial(small.first_byte, count=20 if quick else 300)),
        Measure("start", waiting.start),
        Measure(
            "waiting uploads",
            partial(waiting.waiting, count=300 if quick else 10_000, seconds=1 if quick else 30),
            afresh=True,
        ),
        Measure(
            "streams held", partial(streams.held, source=zeros(folder, 64 * MIB), count=5 if quick else 50), afresh=True
        ),
        Measure(
            "long stream", partial(streams.long_stream, source=zeros(folder, total if quick else 10 * GIB)), afresh=True
        ),
    ]


def _measure(
    measures: Sequence[Measure], all_kinds: Sequence[Kind], options: argparse.Namespace
) -> dict[str, dict[str, list[Figures]]]:
    wanted = [measure for measure in measures if not options.only or any(part in measure.name for part in options.only)]
    results: dict[str, dict[str, list[Figures]]] = {}
    rounds = 1 if options.quick else options.rounds
    with contextlib.ExitStack() as stack:
        # Starting every target afresh takes half a minute, and the figures of a quick run mean nothing anyway. So a
        # quick run starts them afresh for the last measure only, to show that it works.
        in_rounds = [measure for measure in wanted if not measure.afresh or (options.quick and measure != wanted[-1])]
        targets = [(kind, stack.enter_context(kind.running())) for kind in all_kinds if in_rounds]
        for measure in in_rounds:
            measured = [target for kind, target in targets if kind.has(measure.name)]
            results[measure.name] = _alternate(measure, measured, rounds, warm=not options.quick)
    for measure in wanted:
        if measure not in in_rounds:
            results[measure.name] = {
                kind.name: [_afresh(measure, kind)] for kind in all_kinds if kind.has(measure.name)
            }
    return results


def _alternate(measure: Measure, targets: list[Target], rounds: int, *, warm: bool) -> dict[str, list[Figures]]:
    """Run every target once in each round, after warm-up runs that do not count. Every second round goes backwards."""
    runs: dict[str, list[Figures]] = {target.name: [] for target in targets}
    for target in targets * (measure.warm if warm else 0):
        _run(measure, target, "to warm up")
    for number in range(rounds):
        for target in targets if number % 2 == 0 else reversed(targets):
            runs[target.name].append(_run(measure, target, f"round {number + 1}"))
    return runs


def _afresh(measure: Measure, kind: Kind) -> Figures:
    """Start a target, let it carry a few transfers so that it has loaded everything it needs, and measure it."""
    with kind.running() as target:
        small.small(target, 10)
        return _run(measure, target, "by itself")


def _run(measure: Measure, target: Target, when: str) -> Figures:
    if _ended_by:
        sys.exit(f"tests.bench: ended by {_ended_by[0]}")
    try:
        figures = measure.run(target)
    except _BROKEN as error:
        raise BrokenError(f"{measure.name}, {target.name}: {str(error) or type(error).__name__}") from error
    said = ", ".join(f"{key} {value:.4g}" for key, value in figures.items())
    print(f"{measure.name}, {target.name}, {when}: {said}", flush=True)
    return figures


if __name__ == "__main__":
    main()
