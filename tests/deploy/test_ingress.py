"""What stands before the nodes: the ingress' annotations say what nginx.conf says, and the route has no time limits."""

import pytest

from tests.deploy.helm import VALUES, Helm, only
from tests.support.pages import ROOT

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


@pytest.mark.parametrize(
    "setting", ["RELAY_UPLOAD_WAIT", "RELAY_DOWNLOAD_WAIT_MAX", "RELAY_STALL", "RELAY_RESUME_WAIT"]
)
def test_the_ingress_waits_longer_than_the_nodes(newest_helm: Helm, setting: str) -> None:
    manifests = newest_helm.render({"ingress": {"enabled": True}, "settings": {setting: 899.5}})
    annotations = only(manifests, "Ingress")["metadata"]["annotations"]
    for timeout in ("proxy-read-timeout", "proxy-send-timeout"):
        assert annotations[f"nginx.ingress.kubernetes.io/{timeout}"] == "930"


def test_ones_own_annotations_win(newest_helm: Helm) -> None:
    annotations = only(newest_helm.render(VALUES["everything"]), "Ingress")["metadata"]["annotations"]
    assert annotations["nginx.ingress.kubernetes.io/proxy-next-upstream-tries"] == "2"
    assert annotations["nginx.ingress.kubernetes.io/proxy-request-buffering"] == "off"


def test_the_route_has_no_time_limits(newest_helm: Helm) -> None:
    (rule,) = only(newest_helm.render(VALUES["gateway"]), "HTTPRoute")["spec"]["rules"]
    assert rule["timeouts"] == {"request": "0s", "backendRequest": "0s"}
