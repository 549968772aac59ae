"""`python -m tests.bench.scale`: what each part of a cluster spends on bytes, small transfers and waiting clients.

The parts are the nodes, Redis and HAProxy. They share this machine with the clients, so the throughput says little.
But the CPU seconds of each part are read from the kernel, and hold for a larger cluster as well. `sizing` computes from
them how large that has to be.
"""

import argparse
import contextlib
import json
import statistics
import string
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil

from tests.bench import report, small, streams
from tests.bench.__main__ import prepare, sources, zeros
from tests.bench.figures import GIB, KIB, MIB, Figures, settled
from tests.bench.sizing import RESULTS, WAITING, Shape
from tests.bench.targets import Target
from tests.support.cluster import NodeProcess
from tests.support.crowd import crowd, request
from tests.support.haproxy import HAProxy
from tests.support.redis import RedisServer, cluster_of_masters, newest
from tests.support.wait import wait_until

#: The clusters that are measured, each through HAProxy.
SHAPES = (
    Shape(nodes=1),
    Shape(nodes=2),
    Shape(nodes=4),
    Shape(nodes=2, hint=False),
    Shape(nodes=4, hint=False),
    Shape(nodes=4, hint=False, masters=1),
    Shape(nodes=4, hint=False, masters=3),
)
#: Number of tokens, and of streams at once: a Redis Cluster keeps all of a token on one master.
_TOKENS = 12


@dataclass
class Cluster(Target):
    """A cluster behind HAProxy that knows its parts, and whose transfers are those of several tokens."""

    #: The processes of each part, by its name.
    parts: dict[str, list[psutil.Process]] = field(default_factory=dict)
    _prefixes: list[str] = field(default_factory=list, init=False)

    def begin(self) -> None:
        answers = [httpx.post(self.upload_base + "/token").raise_for_status() for _ in range(_TOKENS)]
        self._prefixes = ["/" + answer.text.strip() for answer in answers]

    def upload_url(self, name: str) -> str:
        number = int(name.strip(string.ascii_letters))
        return f"{self.upload_base}{self._prefixes[number % _TOKENS]}/{name}"

    download_url = upload_url

    def cpu_seconds(self) -> float:
        return sum(seconds for of_part in self.spent().values() for seconds in of_part)

    def spent(self) -> dict[str, list[float]]:
        """Return the CPU seconds that each process has used so far, by part."""
        return {
            part: [times.user + times.system for times in (process.cpu_times() for process in processes)]
            for part, processes in self.parts.items()
        }

    def memory(self) -> dict[str, int]:
        """Return the bytes of memory of each part: what is resident, or what Redis says it uses."""
        resident = {part: sum(each.memory_info().rss for each in all_) for part, all_ in self.parts.items()}
        return resident | {"Redis": self.redis_bytes()}


@contextlib.contextmanager
def running(shape: Shape) -> Iterator[Cluster]:
    """Start a cluster of this shape."""
    program = newest("a cluster was not measured")
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="relay-bench-")))
        masters = (
            stack.enter_context(cluster_of_masters(program, shape.masters))
            if shape.masters
            else [stack.enter_context(RedisServer(program))]
        )
        url = f"redis+cluster://127.0.0.1:{masters[0].port}" if shape.masters else masters[0].url
        nodes = [NodeProcess(f"bench-{number}", url, {"trusted_proxies": "127.0.0.1"}) for number in range(shape.nodes)]
        for node in nodes:
            stack.callback(node.stop)
        for node in nodes:
            node.wait_ready()
        balancer = stack.enter_context(HAProxy(nodes, folder, balance="" if shape.hint else "leastconn"))
        parts = {
            "nodes": [psutil.Process(node.process.pid) for node in nodes],
            "Redis": [psutil.Process(master.process.pid) for master in masters],
            "HAProxy": [psutil.Process(balancer.process.pid)],
        }
        yield Cluster(
            shape.name,
            balancer.url,
            balancer.url,
            parts["nodes"],
            servers=[],
            start=lambda: 0.0,
            ask=stack.enter_context(masters[0].client()),
            parts=parts,
        )


@contextlib.contextmanager
def _by_part(cluster: Cluster, figures: Figures, unit: str, count: float) -> Iterator[None]:
    """Measure the CPU of the block by part, divided by `count`; also that of the busiest Redis, in percent of all."""
    before = cluster.spent()
    yield
    for part, after in cluster.spent().items():
        used = [later - earlier for later, earlier in zip(after, before[part], strict=True)]
        total = sum(used)
        figures[f"{part}, CPU {unit}"] = total / count
        if part == "Redis" and len(used) > 1 and total:
            figures[f"busiest Redis, % of {unit}"] = max(used) / total * 100


def _bytes(cluster: Cluster, source: Path) -> Figures:
    figures: Figures = {}
    volume = source.stat().st_size * _TOKENS / GIB
    with _by_part(cluster, figures, "s/GiB", volume):
        figures["MB/s"] = streams.streams(cluster, source, _TOKENS)["MB/s"]
    return figures


def _pairs(cluster: Cluster, count: int) -> Figures:
    figures: Figures = {}
    with _by_part(cluster, figures, "ms/pair", count / 1000):
        figures["pairs/s"] = small.small(cluster, count)["pairs/s"]
    return figures


def _waiting(cluster: Cluster, count: int, seconds: float) -> Figures:
    """Measure the memory of each part for an upload that waits, and the CPU while it does."""
    wait_until(lambda: not _lingering(cluster), "the streams of former transfers to expire", timeout=60)
    wait_until(lambda: streams.is_steady(cluster), "Redis to free the buffers of idle connections", timeout=60)
    cluster.begin()
    before = cluster.memory()
    paths = [urlsplit(cluster.upload_url(f"w{number}")).path for number in range(count)]
    heads = [request("PUT", path, Content_Length=5) for path in paths]
    with crowd(urlsplit(cluster.upload_base).port or 0, heads):
        wait_until(lambda: settled(cluster), "the uploads to be taken", timeout=120)
        wait_until(lambda: streams.is_steady(cluster), "Redis to free the buffers of idle connections", timeout=60)
        after = cluster.memory()
        figures = {f"{part}, KiB/waiting": (after[part] - before[part]) / count / KIB for part in after}
        with _by_part(cluster, figures, "ms/s/waiting", count * seconds / 1000):
            time.sleep(seconds)
    wait_until(lambda: settled(cluster), "the uploads to be given up", timeout=120)
    return figures


def _lingering(cluster: Cluster) -> bool:
    """Return whether Redis still has streams of transfers that have ended."""
    assert cluster.ask
    return any(True for _ in cluster.ask.scan_iter("relay:acks:*", count=1000))


def measure(shape: Shape, folder: Path, *, quick: bool) -> Figures:
    """Start a cluster of this shape, and measure it once."""
    source = zeros(folder, (8 if quick else 64) * MIB)
    with running(shape) as cluster:
        small.small(cluster, 50)  # so that all has been loaded that is needed
        _bytes(cluster, zeros(folder, 4 * MIB))
        figures = _bytes(cluster, source) | _pairs(cluster, 100 if quick else 1000)
        if shape == WAITING:
            figures |= _waiting(cluster, 200 if quick else 4000, 1 if quick else 35)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.scale", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a minute: small volumes, one round; shows that it works")
    parser.add_argument("--rounds", type=int, default=3, help="how often each shape is measured [%(default)s]")
    parser.add_argument("--out", type=Path, default=Path("bench-results"), help="folder for results [%(default)s]")
    options = parser.parse_args()
    prepare()
    runs: dict[str, list[Figures]] = {shape.name: [] for shape in SHAPES}
    with sources() as folder:
        about = report.machine()
        for number in range(1 if options.quick else options.rounds):
            for shape in SHAPES if number % 2 == 0 else reversed(SHAPES):
                figures = measure(shape, folder, quick=options.quick)
                runs[shape.name].append(figures)
                said = ", ".join(f"{name} {value:.3g}" for name, value in figures.items())
                print(f"{shape.name}, round {number + 1}: {said}", flush=True)
    medians = {
        name: {figure: round(statistics.median(run[figure] for run in of_shape), 4) for figure in of_shape[0]}
        for name, of_shape in runs.items()
    }
    options.out.mkdir(parents=True, exist_ok=True)
    results = {"machine": about, "rounds": len(runs[SHAPES[0].name]), "figures": medians}
    (options.out / RESULTS.name).write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
