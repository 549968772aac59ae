"""A copy of what is checked out, as a clone would have it."""

import shutil
import subprocess
from pathlib import Path

from tests.support.pages import ROOT


def copy_checkout(target: Path) -> None:
    """Copy what a clone of this working tree would have, without the files that Git ignores."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target / name)
