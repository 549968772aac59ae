"""The standard streams of the commands: closed, on a full disk, or a terminal that is gone."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.client.commands import receive, send
from tests.client.terminal import Terminal
from tests.support.cluster import Cluster, random_file


def shell(line: str, *arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a line of the shell, in which `$RELAY` is the command, and `$1` the first argument."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "RELAY": f"{sys.executable} -m relay"}
    command = ["sh", "-c", line, "sh", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_what_is_closed_is_not_needed(cluster: Cluster, tmp_path: Path, inbox: Path, closed: str) -> None:
    """And no file gets its number, and what is printed with it."""
    file = random_file(tmp_path / "file", 100_000)
    with send(cluster[0].url, file) as sender:
        done = shell(f"exec $RELAY receive $1 {closed}", sender.address(), cwd=inbox)
        assert done.returncode == 0, done.stderr
        assert sender.finish() == 0, sender.said
    assert (inbox / "file").read_bytes() == file.read_bytes()


@pytest.mark.parametrize(
    ("line", "status", "words"),
    [
        ("$RELAY send --server $1 --name x - <&-", 2, "relay: stdin is closed, so nothing can be read from it\n"),
        ("$RELAY receive <&-", 2, "relay: stdin is closed, so nothing can be read from it\n"),
        (r"printf '\377\n' | $RELAY receive", 2, " link"),
        ("$RELAY receive -o - x >&-", 2, "stdout is closed: choose a file with -o\n"),
        ("$RELAY send --server $1 --json file >/dev/full", 5, "relay: the output: No space left on device\n"),
        ("$RELAY send --server $1 --quiet file >/dev/full", 5, "relay: the output: No space left on device\n"),
        ("$RELAY send --server $1 file 2>/dev/full", 5, ""),
    ],
)
def test_what_is_needed_is_missed(cluster: Cluster, tmp_path: Path, line: str, status: int, words: str) -> None:
    random_file(tmp_path / "file", 10)
    done = shell(line, cluster[0].url, cwd=tmp_path)
    assert done.returncode == status, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_what_cannot_be_written_to_is_named(cluster: Cluster, tmp_path: Path) -> None:
    file = random_file(tmp_path / "file", 10)
    for output, name in (("- >/dev/full", "stdout"), ("/dev/full", "/dev/full")):
        with send(cluster[0].url, file) as sender:
            done = shell(f"$RELAY receive $1 -o {output}", sender.address(), cwd=tmp_path)
            assert (done.returncode, done.stderr) == (5, f"relay: cannot write to {name}: No space left on device\n")


def test_a_transfer_outlives_the_terminal_of_both_sides(cluster: Cluster, tmp_path: Path, inbox: Path) -> None:
    file = random_file(tmp_path / "file", 3_000_000)
    with Terminal("send", "--server", cluster[0].url, file) as sender:
        link = re.search(r"curl -fOJ (\S+)", sender.wait_for("waiting for somebody"))
        assert link
        sender.vanish()
        with receive("--wait", "0", link[1], cwd=inbox) as receiver:
            assert receiver.finish() == 0, receiver.said
        assert sender.process.wait(60) == 0
    with send(cluster[0].url, "-", "--name", "pipe", stdin=subprocess.PIPE) as other:
        with Terminal("receive", other.address(), cwd=inbox) as shown:
            assert other.process.stdin is not None
            other.process.stdin.write(b"a")
            other.process.stdin.flush()
            shown.wait_for("━")
            shown.vanish()
            other.feed(b"b")
            assert shown.process.wait(60) == 0
        assert other.finish() == 0, other.said
    assert (inbox / "pipe").read_bytes() == b"ab"
