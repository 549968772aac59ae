"""The lock files of the image: they allow what pyproject.toml allows, and nothing that has no hash."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.pages import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
#: The image has the extra `otel`, too.
EXTRA = PROJECT["project"]["optional-dependencies"]["otel"]
DEPENDENCIES = [Requirement(line) for line in PROJECT["project"]["dependencies"] + EXTRA]
BUILD = [Requirement(line) for line in PROJECT["build-system"]["requires"]]
RUN_LOCK, BUILD_LOCK = (ROOT / "deploy" / name for name in ("requirements.lock", "build.lock"))


def locked(lock: Path) -> dict[str, tuple[str, int]]:
    """Return version and number of hashes of each package of a lock file; of several versions the last."""
    text = re.sub(r"^\s*#.*\n", "", lock.read_text(), flags=re.MULTILINE).replace("\\\n", "")
    packages: dict[str, tuple[str, int]] = {}
    for line in text.splitlines():
        pinned = re.fullmatch(r"([\w.-]+)==(\S+)( ; [^-]+)?((?: +--hash=sha256:[0-9a-f]{64})+) *", line)
        assert pinned, line
        packages[canonicalize_name(pinned[1])] = (pinned[2], pinned[4].count("--hash"))
    return packages


@pytest.mark.parametrize(("lock", "required"), [(RUN_LOCK, DEPENDENCIES), (BUILD_LOCK, BUILD)])
def test_the_lock_is_what_pyproject_asks_for(lock: Path, required: list[Requirement]) -> None:
    """If this fails, run `deploy/lock`."""
    packages = locked(lock)
    for requirement in required:
        version, hashes = packages[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), requirement
        assert hashes > 0


def test_the_tests_have_what_the_extra_has() -> None:
    assert set(EXTRA) <= set(PROJECT["project"]["optional-dependencies"]["test"])


@pytest.mark.parametrize("lock", [RUN_LOCK, BUILD_LOCK])
def test_a_lock_names_no_index(lock: Path) -> None:
    assert not re.search(r"://|^--|@", lock.read_text(), re.MULTILINE)


@pytest.mark.parametrize("name", ["uvicorn", "uvloop", "httptools", "redis", "hiredis", "fakeredis"])
def test_packages_whose_private_parts_are_used_have_an_upper_bound(name: str) -> None:
    (requirement,) = [requirement for requirement in DEPENDENCIES if requirement.name == name]
    assert any(specifier.operator == "<" for specifier in requirement.specifier), requirement
