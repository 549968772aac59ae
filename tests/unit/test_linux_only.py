"""A node needs Linux. Elsewhere `relay serve` says so, in one line."""

import subprocess
import sys

import pytest
from click.testing import CliRunner

from relay.cli.main import main

#: Takes away what other systems lack, and runs `relay serve` as one of them would.
ELSEWHERE = """
import asyncio, select, socket, sys
for name in ("fcntl", "termios", "resource"):
    sys.modules[name] = None
for module in (select, socket):
    for name in [name for name in vars(module) if name.startswith(("epoll", "EPOLL", "TCP_KEEP", "TCP_INFO"))]:
        delattr(module, name)
from relay.cli.main import main
import relay.cli.serve  # which main() loads later; the standard library cannot be loaded under a false platform
sys.platform = "darwin"
sys.argv = ["relay", "serve"]
main()
"""


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_a_node_does_not_start_elsewhere(monkeypatch: pytest.MonkeyPatch, platform: str) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    done = CliRunner().invoke(main, ["serve"])
    assert done.exit_code == 2
    assert done.output.count("\n") == 1
    assert done.output.startswith("relay: serve needs Linux")


def test_nothing_that_only_linux_has_is_in_the_way_of_that_line() -> None:
    done = subprocess.run([sys.executable, "-c", ELSEWHERE], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("relay: serve needs Linux")
    assert done.stderr.count("\n") == 1
