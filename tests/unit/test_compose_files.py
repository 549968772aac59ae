"""The files for `docker-compose`: what operators can set reaches the nodes, and what the pages and CI say fits."""

import re

import yaml

from relay.settings import Settings
from tests.support.pages import ROOT

COMPOSE = (ROOT / "docker-compose.yml").read_text()
OVERRIDES = "".join(file.read_text() for file in (ROOT / "deploy").glob("docker-compose.*.yml"))
EXAMPLE = (ROOT / ".env.example").read_text()
#: What fits the containers, their balancer and their grace period, and cannot be set from outside.
FIXED = {"host", "port", "ssl_certfile", "ssl_keyfile", "node", "trusted_proxies", "drain_delay", "drain_timeout"}


def test_every_setting_reaches_the_nodes() -> None:
    passed = yaml.safe_load(COMPOSE)["services"]["relay"]["environment"]
    taken = {name for name, value in passed.items() if value is None or f"${{{name}-" in str(value)}
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
