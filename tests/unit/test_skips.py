"""The end of a run says once for each reason how many tests were skipped."""

import subprocess
import sys
from pathlib import Path

from tests.support.pages import ROOT

_TESTS = """
import pytest

@pytest.mark.parametrize("number", range(3))
def test_of_a_server(number):
    pytest.skip("no server")

def test_of_a_browser():
    pytest.skip("no browser")
"""


def test_each_reason_is_told_once(tmp_path: Path) -> None:
    file = tmp_path / "test_skipped.py"
    file.write_text(_TESTS)
    options = ["-p", "tests.conftest", "-c", str(ROOT / "pyproject.toml"), "--rootdir", str(tmp_path), str(file)]
    command = [sys.executable, "-m", "pytest", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    told = [line for line in done.stdout.splitlines() if "no " in line]
    assert told == ["3 skipped: no server", "1 skipped: no browser"], done.stdout
