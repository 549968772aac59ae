"""Prometheus itself on real nodes, HAProxy and Redis: every expression of deploy/ finds what it names."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import yaml

from tests.http.test_metrics import ALERTS, DASHBOARD, DEPLOY, expressions
from tests.support.cluster import Cluster, over_redis
from tests.support.haproxy import HAProxy
from tests.support.ports import free_port
from tests.support.redis import RedisServer
from tests.support.wait import wait_until

#: Metrics that have no sample before the first error, or before the first alert.
_LATER = {"relay_redis_errors_total", "ALERTS"}


class Prometheus:
    """One prometheus process with the configuration of deploy/, its addresses replaced by those of `jobs`."""

    def __init__(self, folder: Path, jobs: dict[str, list[str]]) -> None:
        settings = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())
        assert {job["job_name"] for job in settings["scrape_configs"]} == jobs.keys()
        settings["global"] = {"scrape_interval": "500ms", "evaluation_interval": "500ms"}
        for job in settings["scrape_configs"]:
            job.pop("dns_sd_configs", None)
            job["static_configs"] = [{"targets": jobs[job["job_name"]]}]
            if "authorization" in job:
                (folder / "admin_secret").write_text("operators-secret")
                job["authorization"] = {"credentials_file": str(folder / "admin_secret")}
        (folder / "prometheus.yml").write_text(yaml.safe_dump(settings))
        shutil.copy(ALERTS, folder)
        address = f"127.0.0.1:{free_port()}"
        self._client = httpx.Client(base_url=f"http://{address}/api/v1")
        self.process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={folder}/prometheus.yml",
                f"--storage.tsdb.path={folder}/data",
                f"--web.listen-address={address}",
                "--log.level=error",
            ]
        )

    def value(self, expression: str) -> list[dict[str, object]]:
        """Return the series that an expression has now. Fail if Prometheus does not take it."""
        answer = self._client.get("/query", params={"query": expression}).json()
        assert answer["status"] == "success", (answer, expression)
        return list(answer["data"]["result"])

    def raised(self) -> set[str]:
        """Return the alerts that are pending or firing. Fail if a rule cannot be evaluated."""
        groups = self._client.get("/rules").json()["data"]["groups"]
        rules = [rule for group in groups for rule in group["rules"]]
        assert all(rule["health"] == "ok" for rule in rules), rules
        return {rule["name"] for rule in rules if rule["state"] != "inactive"}

    def stop(self) -> None:
        self._client.close()
        self.process.terminate()
        self.process.wait(30)

    def is_up(self, targets: int) -> bool:
        try:
            return len(self.value("up == 1")) == targets
        except (httpx.TransportError, ValueError):  # it does not listen yet, or says in plain text that it is not ready
            return False


@contextmanager
def running(*command: str) -> Iterator[None]:
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def cluster(redis_server: RedisServer) -> Iterator[Cluster]:
    for program in ("prometheus", "prometheus-redis-exporter", "haproxy"):
        if not shutil.which(program):
            pytest.skip(f"no {program} on PATH: the expressions of the alerts and the dashboard met no Prometheus")
    private = {"admin_secret": "operators-secret", "status": "private", "trusted_proxies": "127.0.0.1"}
    with over_redis(redis_server, "ab", **private) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def prometheus(
    cluster: Cluster, redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prometheus]:
    exporter, folder = f"127.0.0.1:{free_port()}", tmp_path_factory.mktemp("prometheus")
    (folder / "haproxy").mkdir()
    with (
        HAProxy(cluster.nodes, folder / "haproxy", monitored=True) as balancer,
        running("prometheus-redis-exporter", "--redis.addr", redis_server.url, "--web.listen-address", exporter),
    ):
        nodes = [f"127.0.0.1:{node.port}" for node in cluster.nodes]
        metrics = f"127.0.0.1:{balancer.metrics_port}"
        prometheus = Prometheus(folder, {"relay": nodes, "haproxy": [metrics], "redis": [exporter]})
        try:
            wait_until(lambda: prometheus.is_up(4), "Prometheus to reach all")
            yield prometheus
        finally:
            prometheus.stop()


def test_every_expression_finds_what_it_names(prometheus: Prometheus) -> None:
    for path in (ALERTS, DASHBOARD):
        for expression in (each.replace("$job", "relay") for each in expressions(path)):
            prometheus.value(expression)
            selectors = re.findall(r"\b[a-zA-Z_]+\{[^}]*\}", expression)
            assert selectors, expression
            for selector in selectors:
                assert selector.partition("{")[0] in _LATER or prometheus.value(selector), (selector, expression)


def test_no_alert_is_raised_while_all_is_well_and_those_of_a_dead_node_are_when_it_dies(
    prometheus: Prometheus, cluster: Cluster
) -> None:
    """Pending is enough: the alerts wait for minutes before they fire. The Redis of the tests has no maxmemory."""

    wait_until(lambda: prometheus.raised() == {"RedisWithoutLimit"}, "the alerts of a cluster that is well")
    node = cluster.nodes[1]
    node.kill()
    try:
        dead = {"RelayNodeDown", "RelayNodeVanished"}
        wait_until(lambda: dead <= prometheus.raised(), "the alerts about a dead node", timeout=60)
        assert "RelayNoNode" not in prometheus.raised()
    finally:
        cluster.nodes[1] = node.successor()
        cluster.nodes[1].wait_ready()


def test_promtool_takes_the_files() -> None:
    if not shutil.which("promtool"):
        pytest.skip("no promtool on PATH: the files for Prometheus were not checked")
    for check in (("rules", ALERTS), ("config", "--syntax-only", DEPLOY / "prometheus.yml")):
        done = subprocess.run(["promtool", "check", *check], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
