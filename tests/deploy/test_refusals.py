"""Values that cannot work: the chart refuses each with one line that says what to do."""

import json

import pytest
import yaml

from tests.deploy.helm import Helm, Manifest
from tests.support.chart import CHART


def test_the_schema_knows_exactly_the_values() -> None:
    """Otherwise a new value would be refused, or an old one taken for one that still does something."""
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = json.loads((CHART / "values.schema.json").read_text())["properties"]
    assert values.keys() == schema.keys() - {"global"}  # which Helm adds by itself
    for name, value in values.items():
        if name not in ("settings", "settingsFromSecrets") and "properties" in schema[name]:
            assert value.keys() == schema[name]["properties"].keys(), name


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"settings": {"RELAY_TOKEN_LIVE": 3}}, "RELAY_TOKEN_LIVE"),
        ({"settings": {"RELAY_DRAIN_TIMEOUT": -1}}, "RELAY_DRAIN_TIMEOUT"),
        ({"settings": {"RELAY_STATUS": "hidden"}}, "RELAY_STATUS"),
        ({"replica": 3}, "replica"),
        ({"ingress": {"enabled": True, "controller": "traefik"}}, "controller"),
    ],
)
def test_the_schema_refuses_what_is_unknown_or_impossible(helm: Helm, values: Manifest, words: str) -> None:
    assert words in helm.refusal(values)


_URL = {"RELAY_REDIS_URL": "redis://redis.example:6379/0"}
_SECRET = {"name": "relay", "key": "key"}


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"settings": _URL}, "set redis.trial=false to use your own Redis"),
        ({"settingsFromSecrets": {"RELAY_REDIS_URL": _SECRET}}, "set redis.trial=false to use your own Redis"),
        (
            {"redis": {"trial": False}},
            "replicas=2 needs a Redis: set RELAY_REDIS_URL, or redis.trial=true, or replicas=1",
        ),
        (
            {"redis": {"trial": False}, "settings": {"RELAY_REDIS_URL": "memory://"}},
            "replicas=2 needs a Redis: set RELAY_REDIS_URL, or redis.trial=true",
        ),
        (
            {"redis": {"trial": False}, "replicas": 1, "autoscaling": {"enabled": True}},
            "autoscaling.enabled=true needs a Redis",
        ),
        (
            {"redis": {"trial": False}, "settings": _URL, "settingsFromSecrets": {"RELAY_REDIS_URL": _SECRET}},
            "settings.RELAY_REDIS_URL and settingsFromSecrets.RELAY_REDIS_URL: keep one of them",
        ),
        (
            {"settings": {"RELAY_TOKEN_SECRET": "a-long-secret", "RELAY_TOKEN_SECRET_FILE": "/token"}},
            "settings.RELAY_TOKEN_SECRET_FILE is set, and RELAY_TOKEN_SECRET too: keep one of them",
        ),
        (
            {"namedSecrets": "[a]", "settingsFromSecrets": {"RELAY_TOKEN_SECRETS_FILE": _SECRET}},
            "namedSecrets and RELAY_TOKEN_SECRETS_FILE: keep one of them",
        ),
        ({"settings": {"RELAY_STATUS": "private"}}, "RELAY_STATUS=private needs a RELAY_ADMIN_SECRET"),
        (
            {"tls": {"secretName": "a"}, "settings": {"RELAY_SSL_CERTFILE": "/b"}},
            "tls.secretName and settings.RELAY_SSL_CERTFILE: keep one of them",
        ),
        (
            {"tls": {"secretName": "a"}, "ingress": {"enabled": True}},
            "the ingress and the route speak HTTP to the nodes",
        ),
        ({"autoscaling": {"enabled": True, "minReplicas": 20}}, "minReplicas must be at most autoscaling.maxReplicas"),
        (
            {
                "autoscaling": {
                    "enabled": True,
                    "metrics": dict.fromkeys(("relay_uploads_streaming", "relay_downloads_streaming")),
                }
            },
            "autoscaling.enabled=true needs autoscaling.metrics or autoscaling.cpu",
        ),
        (
            {"autoscaling": {"enabled": True, "cpu": 80}, "resources": {"requests": {"cpu": None}}},
            "autoscaling.cpu is a percentage of resources.requests.cpu: set that, too",
        ),
        ({"httpRoute": {"enabled": True}}, "httpRoute.enabled=true needs httpRoute.parentRefs"),
        (
            {
                "serviceMonitor": {"enabled": True},
                "settings": {"RELAY_STATUS": "private", "RELAY_ADMIN_SECRET_FILE": "/admin"},
            },
            "serviceMonitor.enabled=true with RELAY_STATUS=private needs RELAY_ADMIN_SECRET",
        ),
    ],
)
def test_values_that_contradict_each_other_are_refused_in_one_line(
    newest_helm: Helm, values: Manifest, line: str
) -> None:
    first, _, rest = newest_helm.refusal(values).partition("\n")
    assert first.startswith("Error: execution error at (relay/templates/deployment.yaml")
    assert line in first
    assert rest.strip() == "Use --debug flag to render out invalid YAML"  # Helm's own
