"""What the Helm chart makes of values: Kubernetes takes it, its parts fit together, and what cannot work is refused."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

from relay.cli.serve import _GRACE
from relay.settings import Settings
from tests.deploy.helm import MODULES, NAMESPACE, VALUES, Helm, Manifest, cannot, only, pods
from tests.support.chart import CHART
from tests.support.pages import ROOT

#: The oldest release that Chart.yaml allows, and the newest when this was written.
RELEASES = ("1.25", "1.37")
#: Kinds that are not Kubernetes' own.
CRDS = ("HTTPRoute", "ServiceMonitor")


@pytest.fixture(scope="module", params=VALUES)
def manifests(request: pytest.FixtureRequest, newest_helm: Helm) -> list[Manifest]:
    """Return what the chart makes of one of the files in `values/`."""
    return newest_helm.render(VALUES[request.param])


@pytest.mark.parametrize("values", VALUES)
def test_helm_finds_no_fault(helm: Helm, values: str) -> None:
    done = helm.run("lint", "--strict", CHART, "--values", VALUES[values])
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("values", VALUES)
def test_all_helms_make_the_same(helm: Helm, newest_helm: Helm, values: str) -> None:
    assert helm is newest_helm or helm.render(VALUES[values]) == newest_helm.render(VALUES[values])


@pytest.mark.parametrize("release", RELEASES)
def test_kubernetes_takes_every_object(manifests: list[Manifest], release: str) -> None:
    for manifest in manifests:
        if manifest["kind"] not in CRDS:
            kubernetes_validate.validate(manifest, release, strict=True)
        assert manifest["metadata"]["namespace"] == NAMESPACE


def test_the_gateway_and_the_prometheus_operator_take_theirs(manifests: list[Manifest]) -> None:
    if not (shutil.which("node") and MODULES.is_dir()):
        cannot("no node, or RELAY_TEST_HELM names no folder of .ci/helm: HTTPRoute and ServiceMonitor were not checked")
    found = [manifest for manifest in manifests if manifest["kind"] in CRDS]
    done = subprocess.run(
        ["node", Path(__file__).parent / "crds.mjs", MODULES],
        input=json.dumps(found),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_no_container_may_do_anything(manifests: list[Manifest]) -> None:
    """What the level `restricted` of the Pod Security Standards asks for, and a root file system that is read-only."""
    for pod in pods(manifests):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
            assert container["resources"]["limits"]["memory"]


def test_the_parts_find_each_other(manifests: list[Manifest]) -> None:
    labels = [one["spec"]["template"]["metadata"]["labels"] for one in manifests if one["kind"] == "Deployment"]
    services = {one["metadata"]["name"]: one for one in manifests if one["kind"] == "Service"}
    for selector in _selectors(manifests):
        assert sum(selector.items() <= pod.items() for pod in labels) == 1, selector
    for one in manifests:
        if one["kind"] == "ServiceMonitor":
            wanted = one["spec"]["selector"]["matchLabels"].items()
            (found,) = (service for service in services.values() if wanted <= service["metadata"]["labels"].items())
            (port,) = found["spec"]["ports"]
            assert one["spec"]["endpoints"][0]["port"] == port["name"] == one["spec"]["endpoints"][0]["scheme"]
        if one["kind"] == "HTTPRoute":
            (reference,) = one["spec"]["rules"][0]["backendRefs"]
            assert reference["port"] in [port["port"] for port in services[reference["name"]]["spec"]["ports"]]
        if one["kind"] == "Ingress":
            (path,) = one["spec"]["rules"][0]["http"]["paths"]
            service = path["backend"]["service"]
            assert service["port"]["name"] in [port["name"] for port in services[service["name"]]["spec"]["ports"]]
        if one["kind"] == "HorizontalPodAutoscaler":
            target = only(manifests, "Deployment", one["spec"]["scaleTargetRef"]["name"])
            assert "replicas" not in target["spec"]


def _selectors(manifests: list[Manifest]) -> Iterator[dict[str, str]]:
    """Yield every selector that has to choose the pods of exactly one Deployment."""
    for one in manifests:
        selector = one["spec"].get("selector") or one["spec"].get("podSelector") if "spec" in one else None
        if selector and one["kind"] != "ServiceMonitor":
            yield selector.get("matchLabels", selector)


def test_everything_that_is_mounted_is_there(manifests: list[Manifest]) -> None:
    own = {one["metadata"]["name"]: one["data"] for one in manifests if one["kind"] == "Secret"}
    for pod in pods(manifests):
        volumes = {volume["name"]: volume for volume in pod.get("volumes", [])}
        for container in pod["containers"]:
            assert {mount["name"] for mount in container.get("volumeMounts", [])} == volumes.keys()
        for source in volumes.get("secrets", {}).get("projected", {}).get("sources", []):
            keys = {item["key"] for item in source["secret"]["items"]}
            assert source["secret"]["name"] not in own or keys <= own[source["secret"]["name"]].keys()


def test_old_and_new_nodes_run_side_by_side_unless_they_cannot_know_each_other(newest_helm: Helm) -> None:
    strategies = {
        values: only(newest_helm.render(VALUES[values]), "Deployment")["spec"]["strategy"]
        for values in ("alone", "defaults", "existing-secrets", "everything")
    }
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    assert strategies.pop("alone") == {"type": "Recreate"}
    assert all(strategy == rolling for strategy in strategies.values())


def test_no_secret_is_outside_of_a_secret(newest_helm: Helm) -> None:
    manifests = newest_helm.render(VALUES["everything"])
    for one in manifests:
        if one["kind"] != "Secret":
            for secret in ("first-secret", "second-secret", "an-admin-secret", "redis.example", "2bb80d53"):
                assert secret not in json.dumps(one), one["kind"]


def test_new_secrets_replace_the_nodes_and_new_named_ones_do_not(newest_helm: Helm) -> None:
    def checksum(**values: Any) -> str:
        rendered = only(newest_helm.render(VALUES["everything"], values), "Deployment")
        return str(rendered["spec"]["template"]["metadata"]["annotations"]["checksum/secrets"])

    assert checksum(settings={"RELAY_ADMIN_SECRET": "another-secret"}) != checksum()
    assert checksum(namedSecrets="") == checksum()


@pytest.mark.parametrize(
    ("settings", "seconds"),
    [
        ({}, 140),
        ({"RELAY_DRAIN_TIMEOUT": 0.5}, 35),
        ({"RELAY_DRAIN_TIMEOUT": 86400}, 86420),
        ({"RELAY_DRAIN_DELAY": 60, "RELAY_DRAIN_WAIT": 90.5, "RELAY_DRAIN_TIMEOUT": 120}, 171),
    ],
)
def test_a_node_has_time_to_drain(newest_helm: Helm, settings: dict[str, float], seconds: int) -> None:
    pod = only(newest_helm.render({"settings": settings}), "Deployment")["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] == seconds
    assert seconds >= settings.get("RELAY_DRAIN_TIMEOUT", Settings().drain_timeout) + _GRACE
    assert "lifecycle" not in pod["containers"][0]


#: Annotations that are called otherwise than the directives of nginx that they set.
_DIRECTIVES = {"proxy-body-size": "client_max_body_size"}


@pytest.mark.parametrize("controller", ["ingress-nginx", "nginx.org"])
def test_the_annotations_say_what_nginx_conf_says(newest_helm: Helm, controller: str) -> None:
    """The tests of tests/compose show that nginx streams with these directives."""
    manifests = newest_helm.render({"ingress": {"enabled": True, "controller": controller}})
    annotations = dict(only(manifests, "Ingress")["metadata"]["annotations"])
    snippets = annotations.pop("nginx.org/location-snippets", "")
    said = dict(line.rstrip(";").split(" ", 1) for line in snippets.splitlines())
    for annotation, value in annotations.items():
        name = annotation.rpartition("/")[2]
        seconds = "s" if name.endswith("timeout") and value.isdigit() else ""
        said[_DIRECTIVES.get(name) or name.replace("-", "_")] = value.replace("false", "off") + seconds
    conf = (ROOT / "deploy" / "nginx.conf").read_text()
    for directive, value in said.items():
        assert f" {directive} {value};" in conf
    assert {"proxy_request_buffering", "proxy_buffering", "client_max_body_size", "proxy_read_timeout"} <= said.keys()


@pytest.mark.parametrize(("controller", "timeout"), [("ingress-nginx", "930"), ("nginx.org", "930s")])
def test_the_ingress_waits_longer_than_the_nodes(newest_helm: Helm, controller: str, timeout: str) -> None:
    ingress = {"enabled": True, "controller": controller}
    manifests = newest_helm.render({"ingress": ingress, "settings": {"RELAY_UPLOAD_WAIT": 900}})
    annotations = only(manifests, "Ingress")["metadata"]["annotations"]
    prefix = {"ingress-nginx": "nginx.ingress.kubernetes.io"}.get(controller, controller)
    assert annotations[f"{prefix}/proxy-read-timeout"] == annotations[f"{prefix}/proxy-send-timeout"] == timeout


def test_ones_own_annotations_win(newest_helm: Helm) -> None:
    annotations = only(newest_helm.render(VALUES["everything"]), "Ingress")["metadata"]["annotations"]
    assert annotations["nginx.ingress.kubernetes.io/proxy-next-upstream-tries"] == "2"
    assert annotations["nginx.ingress.kubernetes.io/proxy-request-buffering"] == "off"


def test_the_route_has_no_time_limits(newest_helm: Helm) -> None:
    (rule,) = only(newest_helm.render(VALUES["gateway"]), "HTTPRoute")["spec"]["rules"]
    assert rule["timeouts"] == {"request": "0s", "backendRequest": "0s"}


def test_every_value_is_in_the_schema_and_has_a_comment() -> None:
    """Otherwise Helm would refuse the chart's own defaults, or operators would have to guess."""
    text = (CHART / "values.yaml").read_text()
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert yaml.safe_load(text).keys() == schema["properties"].keys() - {"global"}
    sections = text.split("\n\n")
    assert all(section.lstrip().startswith("#") or "#" in section for section in sections if section.strip())


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


_NAMED = '[alice]\ndigest = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"\n'
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


def test_helm_takes_the_commands_of_the_page(newest_helm: Helm, tmp_path: Path) -> None:
    page = (CHART / "README.md").read_text()
    (tmp_path / "values.yaml").write_text(re.search(r"^```yaml\n(image:.*?)^```", page, re.MULTILINE | re.DOTALL)[1])  # type: ignore[index]
    (tmp_path / "deploy").symlink_to(ROOT / "deploy")
    commands = re.findall(r"^helm (?:install|upgrade(?: --install)?) (.+)$", page, re.MULTILINE)
    assert len(commands) == 3
    for command in commands:
        done = newest_helm.run("template", *command.split(), folder=tmp_path)
        assert done.returncode == 0, done.stderr
        assert any(one and one["kind"] == "Deployment" for one in yaml.safe_load_all(done.stdout))


@pytest.mark.parametrize(
    ("values", "warnings"),
    [
        ({}, {"one for trials", "Anybody who reaches it may make tokens"}),
        ({"settings": {"RELAY_TOKEN_SECRET": "a-long-secret"}}, {"one for trials"}),
        (
            {"httpRoute": {"enabled": True, "parentRefs": [{"name": "public"}]}, "namedSecrets": _NAMED},
            {"one for trials", "All clients count as one"},
        ),
        (VALUES["existing-secrets"], {"All clients count as one"}),
        (VALUES["everything"], set()),
    ],
)
def test_the_notes_say_what_is_left_to_do(newest_helm: Helm, values: Manifest | Path, warnings: set[str]) -> None:
    notes = newest_helm.notes(values)
    known = ("one for trials", "Anybody who reaches it may make tokens", "All clients count as one")
    assert {warning for warning in known if warning in notes} == warnings
    assert "helm test trial --namespace files\n" in notes
    assert "\n\n\n" not in notes
