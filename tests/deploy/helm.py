"""Helm, for the tests of the chart: which versions there are, and what they make of values."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any, NoReturn

import pytest
import yaml

from tests.support.chart import CHART

#: One object of Kubernetes.
Manifest = dict[str, Any]
#: The folder that .ci/helm has filled.
_TOOLS = os.environ.get("RELAY_TEST_HELM", "")
#: Environment variable that makes these tests fail instead of being skipped. CI sets it.
_REQUIRED = "RELAY_TESTS_NEED_HELM"
MODULES = Path(_TOOLS, "node_modules")
NAMESPACE, RELEASE = "files", "trial"
#: A file of named secrets.
NAMED = '[alice]\ndigest = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"\n'
VALUES = {file.stem: file for file in sorted((Path(__file__).parent / "values").glob("*.yaml"))}


def programs() -> list[str]:
    """Return every Helm of this machine: those that .ci/helm has fetched, otherwise the one on PATH."""
    fetched = [str(path) for path in sorted(Path(_TOOLS).glob("[34]/helm"))] if _TOOLS else []
    return fetched or [path for path in [shutil.which("helm")] if path]


def cannot(reason: str) -> NoReturn:
    """Skip the test, or fail if nothing may be skipped."""
    if os.environ.get(_REQUIRED):
        pytest.fail(reason)
    pytest.skip(reason)


class Helm:
    """One version of Helm, which renders the chart without a cluster."""

    def __init__(self, program: str) -> None:
        self.program = program

    def run(self, *arguments: str | Path, folder: Path | None = None) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [self.program, *arguments], cwd=folder, capture_output=True, text=True, timeout=60, check=False
        )

    def render(self, *values: Path | Manifest) -> list[Manifest]:
        """Return the objects that the chart makes of values, or of files of values. The last ones win."""
        done = self._run("template", *values)
        assert done.returncode == 0, done.stderr
        return [manifest for manifest in yaml.safe_load_all(done.stdout) if manifest]

    def refusal(self, *values: Path | Manifest) -> str:
        """Return what is printed about values that are refused."""
        done = self._run("template", *values)
        assert done.returncode != 0
        return done.stderr

    def notes(self, *values: Path | Manifest) -> str:
        """Return what is printed after an installation. Skip the test if this Helm needs a cluster for that."""
        done = self._run("install", *values, "--dry-run=client")
        if "cluster unreachable" in done.stderr:
            cannot(f"{self.program} needs a cluster to show the notes: they were not tested")
        assert done.returncode == 0, done.stderr
        return done.stdout.partition("\nNOTES:\n")[2]

    def _run(self, command: str, *values: Path | Manifest | str) -> "subprocess.CompletedProcess[str]":
        """Run a command on the chart, with files of values, maps of values, and options."""
        with tempfile.TemporaryDirectory() as folder:
            options = list[str | Path]()
            for number, given in enumerate(values):
                if isinstance(given, dict):
                    file = Path(folder, f"{number}.yaml")
                    file.write_text(yaml.safe_dump(given))
                    options += ["--values", file]
                else:
                    options += ["--values", given] if isinstance(given, Path) else [given]
            return self.run(command, RELEASE, CHART, "--namespace", NAMESPACE, *options)


def only(manifests: list[Manifest], kind: str, name: str = f"{RELEASE}-relay") -> Manifest:
    """Return the one object of this kind and name."""
    (found,) = (one for one in manifests if (one["kind"], one["metadata"]["name"]) == (kind, name))
    return found


def pods(manifests: list[Manifest]) -> list[Manifest]:
    """Return the specification of every pod: of the nodes, of Redis, and of `helm test`."""
    templates = [one["spec"]["template"]["spec"] for one in manifests if one["kind"] == "Deployment"]
    return templates + [one["spec"] for one in manifests if one["kind"] == "Pod"]
