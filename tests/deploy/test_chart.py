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
from tests.deploy.helm import MODULES, NAMED, NAMESPACE, VALUES, Helm, Manifest, cannot, only, pods
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
            {"httpRoute": {"enabled": True, "parentRefs": [{"name": "public"}]}, "namedSecrets": NAMED},
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
