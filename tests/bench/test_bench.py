"""The benchmark's command line: these tests show that it works, and not how fast anything is."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.bench.curls import Curls
from tests.bench.goals import EMBEDDED, ONE, TWO
from tests.bench.targets import LOCAL, PEER, PEER_BEHIND, SPREAD, BrokenError
from tests.support.redis import newest
from tests.support.wait import wait_until

MEASURES = {
    "one stream": {"MB/s", "CPU s/GiB"},
    **{f"{count} streams": {"MB/s", "CPU s/GiB", "fairness"} for count in (10, 50, 200)},
    "small transfers": {"pairs/s", "p50 ms", "p99 ms", "CPU ms/pair"},
    "first byte": {"p50 ms", "p99 ms"},
    "start": {"s to ready"},
    "waiting uploads": {"node KiB each", "Redis connections", "waiting, % of a core"},
    "streams held": {"node MiB each", "Redis MiB each"},
    "long stream": {"node MiB, first half", "node MiB, second half", "Redis MiB, second half"},
}


@pytest.fixture(autouse=True)
def _needs_redis() -> None:
    newest("the benchmark's harness was not tested")


@pytest.fixture
def temporary(tmp_path: Path) -> Iterator[Path]:
    """Yield a folder for temporary files. Afterwards, check that the harness has left nothing in it."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    in_memory = {*Path("/dev/shm").glob("relay-bench-*")}
    yield folder
    assert [path.name for path in folder.iterdir() if not path.name.startswith("node-compile-cache")] == []
    assert {*Path("/dev/shm").glob("relay-bench-*")} <= in_memory


def bench(temporary: Path, *options: str | Path, path: str = "") -> "subprocess.Popen[str]":
    environment = {**os.environ, "TMPDIR": str(temporary), "PATH": path + os.environ["PATH"]}
    command = [sys.executable, "-m", "tests.bench", "--quick", "--out", temporary.parent / "out", *options]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True)


def test_a_quick_run_measures_everything(temporary: Path) -> None:
    with bench(temporary) as running:
        said, errors = running.communicate(timeout=600)
    assert (running.returncode, errors) == (0, ""), said
    out = temporary.parent / "out"
    results = json.loads((out / "bench.json").read_text())["results"]
    # If the peer cannot be installed, the harness says so and measures the rest.
    peers = set() if f"{PEER} is not measured" in said else {PEER}
    assert peers or not shutil.which("npm") or "npm install" in said
    behind = {LOCAL, SPREAD, *(PEER_BEHIND for _ in peers)} if shutil.which("haproxy") else set()
    assert {*results} == {*MEASURES}
    for measure, figures in MEASURES.items():
        is_behind = measure in ("one stream", "10 streams", "small transfers")
        assert {*results[measure]} == {TWO, ONE, EMBEDDED} | peers | (behind if is_behind else set())
        assert all(figures <= {*run} for runs in results[measure].values() for run in runs)
    table = (out / "bench.md").read_text()
    assert table in said
    assert all(f"| {measure}: " in table for measure in MEASURES)
    for plot in ("throughput", "cpu", "small"):
        drawn = (out / f"{plot}.svg").read_text()
        assert len(drawn) < 100_000
        assert len(re.findall("<path", drawn)) > 20


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """Make a folder with a curl that fails."""
    fake = tmp_path / "bin" / "curl"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\ncase $1 in --version) echo curl 8 ;; *) echo it broke >&2; exit 7 ;; esac\n")
    fake.chmod(0o755)
    return fake.parent


def test_a_client_that_exits_before_it_gets_its_url_is_broken(broken: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{broken}:{os.environ['PATH']}")
    with Curls(1, "a download") as curls:
        curls._processes[0].wait()
        curls.go(["http://127.0.0.1/x" * 10_000])
        with pytest.raises(BrokenError, match="a download failed, exit status 7: it broke"):
            curls.finish()


def test_a_broken_client_ends_the_run_with_one_line(temporary: Path, broken: Path) -> None:
    with bench(temporary, "--only", "one stream", path=f"{broken}:") as running:
        _, errors = running.communicate(timeout=120)
    assert running.returncode == 1
    assert errors == f"tests.bench: one stream, {TWO}: an upload failed, exit status 7: it broke\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_and_all_its_processes(temporary: Path, number: signal.Signals) -> None:
    with bench(temporary, "--only", "waiting") as running:
        harness = psutil.Process(running.pid)
        wait_until(lambda: len(harness.children(recursive=True)) >= 3, "Redis and two nodes to run", timeout=60)
        children = harness.children(recursive=True)
        running.send_signal(number)
        _, errors = running.communicate(timeout=60)
    assert (running.returncode, errors) == (1, f"tests.bench: ended by {number.name}\n")
    assert not [child for child in children if child.is_running()]


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--readme", "README.md"], "a quick run say nothing"),
        (["--rounds", "0"], "at least one round"),
        (["--go-piping-server", "/no/such/folder"], "there is no /no/such/folder"),
        (["--go-piping-server", "tests"], "go build failed in tests" if shutil.which("go") else "no go on PATH"),
        (["--only", "nothing of that name"], "no measure has nothing of that name in its name"),
    ],
)
def test_senseless_options_are_refused(temporary: Path, options: list[str], line: str) -> None:
    with bench(temporary, *options) as running:
        said, errors = running.communicate(timeout=60)
    assert running.returncode in {1, 2}
    assert line in errors
    assert "round" not in said
