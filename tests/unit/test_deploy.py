"""The files with which operators deploy: settings reach the nodes, and the programs that read the files take them."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from relay import __version__
from relay.settings import Settings
from tests.support.chart import CHART, SCHEMA, settings_schema
from tests.support.pages import ROOT

COMPOSE = (ROOT / "docker-compose.yml").read_text()
OVERRIDES = "".join(file.read_text() for file in (ROOT / "deploy").glob("docker-compose.*.yml"))
UNIT = (ROOT / "deploy" / "relay@.service").read_text()
EXAMPLE = (ROOT / ".env.example").read_text()
#: What fits the containers, their balancer and their grace period, and cannot be set from outside.
FIXED = {"host", "port", "ssl_certfile", "ssl_keyfile", "node", "trusted_proxies", "drain_delay", "drain_timeout"}


def test_every_setting_reaches_the_nodes() -> None:
    passed = yaml.safe_load(COMPOSE)["services"]["relay"]["environment"]
    taken = {name for name, value in passed.items() if value is None or f"${{{name}-" in str(value)}
    taken -= {name for name in taken if name.startswith("OTEL_")}  # which are not relay's
    assert taken == {f"RELAY_{name.upper()}" for name in Settings.model_fields.keys() - FIXED}


def test_the_example_names_only_what_is_taken() -> None:
    named = re.findall(r"^#?([A-Z_]+)=", EXAMPLE, re.MULTILINE)
    assert len(named) == len(set(named)) > 20
    for name in named:
        assert name == "COMPOSE_FILE" or re.search(rf"\b{name}\b", COMPOSE + OVERRIDES), name


def test_the_example_sets_nothing_and_shows_the_defaults() -> None:
    """Except for those that must be the operator's own."""
    for line in EXAMPLE.splitlines():
        assert not line or line.startswith("#"), line
    for name, shown in re.findall(r"^#RELAY_(\w+)=(.+)$", EXAMPLE, re.MULTILINE):
        field = Settings.model_fields.get(name.lower())
        if field and field.default and name not in ("STATUS",):
            assert shown == (f"{field.default:g}" if isinstance(field.default, float) else str(field.default)), name
    for name, default in re.findall(r"\$\{(RELAY_\w+|\w+_IMAGE):-([^}]+)\}", COMPOSE + OVERRIDES):
        shown = re.search(rf"^#{name}=(.*)$", EXAMPLE, re.MULTILINE)
        assert shown, name
        assert shown[1] == default or name in ("RELAY_PUBLISH", "RELAY_SECRETS"), name


def test_the_helm_chart_knows_exactly_the_settings() -> None:
    """If this fails, run `python -m tests.support.pages`."""
    schema = json.loads(SCHEMA.read_text())["properties"]["settings"]
    assert schema == settings_schema()
    assert schema["properties"].keys() == {f"RELAY_{name.upper()}" for name in Settings.model_fields}


def test_the_helm_chart_is_of_this_version() -> None:
    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"] == __version__


def run(*command: str) -> "subprocess.CompletedProcess[str]":
    if not shutil.which(command[0]):
        pytest.skip(f"no {command[0]} on PATH: the files of deploy/ were not checked with it")
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_systemd_takes_the_unit_and_finds_it_safe(tmp_path: Path) -> None:
    unit = tmp_path / "relay@4001.service"
    unit.write_text(UNIT.replace("/opt/relay/bin/relay", "/bin/true"))  # which is installed here
    done = run("systemd-analyze", "verify", str(unit))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    # 0 is locked up, and 100 may do everything, as most units may.
    done = run("systemd-analyze", "security", "--offline=true", "--threshold=15", str(unit))
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_node_under_systemd_has_time_to_drain() -> None:
    (seconds,) = re.findall(r"^TimeoutStopSec=(\d+)$", UNIT, re.MULTILINE)
    # After a node has cut off its streams, it exits within `_GRACE` of relay/cli/serve.py: 10 s.
    assert int(seconds) >= Settings.model_fields["drain_timeout"].default + 10
