"""`GET /metrics`: the metrics count what their names say, and those that the dashboard and the alerts use exist."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from relay.app import create_app
from relay.settings import Settings
from tests.support.cluster import Cluster, Curl, NodeProcess, id_of
from tests.support.wait import wait_until

DEPLOY = Path(__file__).parents[2] / "deploy"
DASHBOARD, ALERTS = DEPLOY / "grafana-dashboard.json", DEPLOY / "alerts.yml"


@pytest.fixture(scope="module")
def node() -> Iterator[Cluster]:
    cluster = Cluster([NodeProcess("alone", settings={"admin_secret": "admin-secret"})], None, "relay")
    yield cluster
    cluster.stop()


def samples(node: Cluster) -> dict[str, float]:
    """Return every sample, by its name, and by its name and the values of its labels."""
    found = {}
    for family in text_string_to_metric_families(httpx.get(node[0].url + "/metrics").text):
        for sample in family.samples:
            found[".".join([sample.name, *sample.labels.values()])] = sample.value
            found.setdefault(sample.name, sample.value)
    return found


def transfer(node: Cluster, token: str, size: int) -> None:
    with Curl("-T", "-", node.url(0, token, "x"), pipe=True) as upload:
        upload.write_all(b"x" * size)
        assert httpx.get(node.url(0, token, "x") + "?wait=20").content == b"x" * size
        assert upload.finish()[0] == 0


def test_a_transfer_is_counted_once(node: Cluster) -> None:
    before = samples(node)
    transfer(node, node.token(), 1000)

    def grown(name: str) -> float:
        return samples(node)[name] - before[name]

    wait_until(lambda: grown("relay_transfers_total.complete") == 1, "the transfer to be counted")
    assert grown("relay_tokens_made_total") == 1
    assert grown("relay_received_bytes_total") == 1000
    assert grown("relay_delivered_bytes_total") == 1000
    assert grown("relay_wait_seconds_count") == 1
    assert grown("relay_transfer_seconds_count") == 1
    assert grown("relay_redis_seconds_count") > 3


def test_gauges_rise_and_fall(node: Cluster) -> None:
    token = node.token()
    with Curl("-T", "-", node.url(0, token, "x"), pipe=True) as upload:
        wait_until(lambda: samples(node)["relay_uploads_waiting"] == 1, "the wait to be seen")
        with Curl("-N", node.url(0, token, "x")) as download:
            wait_until(lambda: samples(node)["relay_uploads_streaming"] == 1, "the stream to be seen")
            wait_until(lambda: samples(node)["relay_downloads_streaming"] == 1, "the other side to be seen")
            upload.close()
            assert download.finish()[0] == 0
    wait_until(lambda: samples(node)["relay_uploads_streaming"] == 0, "the end to be seen")
    assert samples(node)["relay_nodes_alive"] == 1


def test_rejections_are_counted_by_reason(node: Cluster) -> None:
    before = samples(node)["relay_rejections_total.unknown_token"]
    httpx.get(node.url(0, "A" * 30, "x"))
    assert samples(node)["relay_rejections_total.unknown_token"] == before + 1


def test_labels_reveal_nothing_of_a_client(node: Cluster) -> None:
    token = node.token()
    httpx.get(node.url(0, token, "private-name") + "?wait=0")
    text = httpx.get(node[0].url + "/metrics").text
    assert id_of(token) not in text
    assert "private-name" not in text


def test_names_follow_the_conventions(node: Cluster) -> None:
    for family in text_string_to_metric_families(httpx.get(node[0].url + "/metrics").text):
        assert re.fullmatch(r"(relay|process)_[a-z_]+", family.name)
        assert family.documentation
        if family.type == "counter":
            assert all(sample.name.endswith("_total") for sample in family.samples)


def test_two_apps_in_one_process_count_for_themselves() -> None:
    one, other = (create_app(Settings(redis_url="")).relay.metrics for _ in range(2))
    one.tokens.inc()
    assert one.registry.get_sample_value("relay_tokens_made_total") == 1
    assert other.registry.get_sample_value("relay_tokens_made_total") == 0


def test_with_a_private_status_only_operators_get_metrics() -> None:
    settings = {"admin_secret": "admin-secret", "status": "private"}
    cluster = Cluster([NodeProcess("alone", settings=settings)], None, "relay")
    try:
        assert httpx.get(cluster[0].url + "/metrics").status_code == 401
        answer = httpx.get(cluster[0].url + "/metrics", headers={"authorization": "Bearer admin-secret"})
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    finally:
        cluster.stop()


def expressions(path: Path) -> list[str]:
    """Return every PromQL expression in the dashboard or in the alerts."""
    if path == DASHBOARD:
        return [target["expr"] for panel in json.loads(path.read_text())["panels"] for target in panel["targets"]]
    groups = yaml.safe_load(path.read_text())["groups"]
    return [rule["expr"] for group in groups for rule in group["rules"]]


@pytest.mark.parametrize("path", [DASHBOARD, ALERTS], ids=lambda path: path.name)
def test_the_metrics_of_the_dashboard_and_the_alerts_exist(node: Cluster, path: Path) -> None:
    node_has = samples(node) | {"up": 1.0}  # Prometheus adds `up` itself
    httpx.get(node.url(0, "A" * 30, "x"))
    asked = expressions(path)
    assert asked
    for expression in asked:
        names = re.findall(r"\b((?:relay|process)_\w+|up)(?=\{)", expression)
        # Those of HAProxy, Redis and Prometheus itself meet a real Prometheus in tests/cluster/test_monitoring.py.
        assert names or re.search(r"\b(haproxy_\w+|redis_\w+|ALERTS)\{", expression), expression
        for name in names:
            # There is no sample of Redis errors before the first error.
            assert name in node_has or name == "relay_redis_errors_total", (name, expression)
        for outcome in re.findall(r'(?:outcome|reason)!?=~?"([a-z_|]+)"', expression):
            for word in outcome.split("|"):
                assert any(key.endswith(f".{word}") for key in node_has), (word, expression)
