"""The pods of the chart, run for real as processes with the environment and the files that it gives them."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from relay.settings import SECTIONS, Settings
from tests.deploy.helm import NAMED, VALUES, Helm, only
from tests.deploy.pod import Pod, RunningNode, secrets_of
from tests.support.certificate import make_certificate
from tests.support.pages import ROOT
from tests.support.ports import free_port
from tests.support.redis import RedisServer, newest
from tests.support.wait import wait_until

#: What the Secrets of `values/existing-secrets.yaml` hold, besides the URL of Redis.
_HELD = {"relay": {"token": "first-secret\nsecond-secret\n", "admin.txt": "an-admin-secret\n"}}
_ADMIN = {"authorization": "Bearer an-admin-secret"}


def other_values() -> dict[str, Any]:
    """Return a value for every setting that is not its default, but for those that name a file.

    If this fails for a new setting that is not a number, give it a value here.
    """
    special = {
        "host": "127.0.0.1",
        "redis_url": "redis://redis.example:6379/0",
        "token_secret": "a-token-secret",
        "admin_secret": "an-admin-secret",
        "node": "a-node",
        "prefix": "another",
        "status": "private",
        "cors_origins": "https://example.org",
        "trusted_proxies": "10.0.0.0/8",
        "interim_proxies": "10.1.0.0/16",
        "token_rate": "7/second",
        "failure_rate": "",
        "log_format": "json",
        "log_level": "debug",
        "max_upload": 10_000_000_000_000,
        "heartbeat": 1.5,
    }
    names = [
        name for section in SECTIONS.values() for name in section if not name.endswith(("_file", "certfile", "keyfile"))
    ]
    defaults = {name: Settings.model_fields[name].default for name in names}
    return {name: special[name] if name in special else defaults[name] + 1 for name in names}


def test_every_setting_reaches_the_nodes(helm: Helm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also large numbers, which Helm would write as 1e+13, and secrets, which come in files."""
    values = other_values()
    settings = {f"RELAY_{name.upper()}": value for name, value in values.items()}
    manifests = helm.render({"settings": settings, "redis": {"trial": False}, "namedSecrets": NAMED})
    spec = only(manifests, "Deployment")["spec"]["template"]["spec"]
    pod = Pod(spec, secrets_of(manifests), tmp_path)
    for name, value in pod.environment.items():
        monkeypatch.setenv(name, value)
    arrived = Settings()
    assert {name: getattr(arrived, name) for name in values} == values
    assert Path(arrived.token_secrets_file).read_text() == NAMED
    assert pod.container["ports"][0]["containerPort"] == values["port"]


@pytest.fixture(scope="module")
def nodes(newest_helm: Helm, redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Run two pods of `values/existing-secrets.yaml`. Yield them, and the pod of `helm test`."""
    held = {**_HELD, "relay-named": {"secrets.toml": NAMED}, "redis": {"url": redis_server.url}}
    with contextlib.ExitStack() as stack:
        started = list[RunningNode]()
        for name in ("relay-5d9c-abcde", "relay-5d9c-fghij"):
            own = {"settings": {"RELAY_PORT": free_port(), "RELAY_HOST": "127.0.0.1", "RELAY_PREFIX": "test-helm"}}
            manifests = newest_helm.render(VALUES["existing-secrets"], own)
            spec = only(manifests, "Deployment")["spec"]["template"]["spec"]
            started.append(RunningNode(Pod(spec, held, tmp_path_factory.mktemp(name), name)))
            stack.callback(started[-1].stop)
        test = Pod(only(manifests, "Pod", "trial-relay-test")["spec"], held, tmp_path_factory.mktemp("test"))
        for node in started:
            node.wait_ready()
        yield started, test


def url(node: RunningNode) -> str:
    return f"http://127.0.0.1:{node.port}"


def metrics(node: RunningNode) -> str:
    return httpx.get(url(node) + "/metrics", headers=_ADMIN).text


def test_the_nodes_are_ready_and_know_each_other_and_their_secrets(nodes: Any) -> None:
    (first, second), _ = nodes
    for node in (first, second):
        assert [node.probe(kind) for kind in ("startup", "liveness", "readiness")] == [200, 200, 200]
    assert httpx.get(url(first) + "/healthz").headers["relay-node"].startswith("relay-5d9c-abcde-")
    wait_until(lambda: "relay_nodes_alive 2.0" in metrics(first), "the first node to have seen the second")
    assert httpx.get(url(first) + "/metrics").status_code == httpx.codes.UNAUTHORIZED
    assert httpx.post(url(first) + "/token").status_code == httpx.codes.UNAUTHORIZED
    made = httpx.post(url(second) + "/token", headers={"authorization": "Bearer second-secret"})
    assert made.status_code == httpx.codes.OK


def test_the_autoscaler_asks_for_gauges_that_there_are(nodes: Any, newest_helm: Helm) -> None:
    (first, _), _ = nodes
    scaler = only(newest_helm.render(VALUES["gateway"]), "HorizontalPodAutoscaler")
    wanted = [metric["pods"]["metric"]["name"] for metric in scaler["spec"]["metrics"]]
    assert len(wanted) == 2
    for name in wanted:
        assert f"# TYPE {name} gauge\n" in metrics(first)


def test_the_program_of_helm_test_carries_its_bytes(nodes: Any) -> None:
    (first, _), test = nodes
    done = run_test(test, url(first))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "sender: 200 delivered 3000000 bytes",
        "receiver: 200, 3000000 bytes",
        "The bytes have arrived.",
    ]


def test_the_program_of_helm_test_needs_no_secret_that_only_clients_have(
    nodes: Any, newest_helm: Helm, tmp_path: Path
) -> None:
    (first, _), _ = nodes
    manifests = newest_helm.render({"namedSecrets": NAMED})
    done = run_test(Pod(only(manifests, "Pod", "trial-relay-test")["spec"], {}, tmp_path), url(first))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("The nodes are ready.")


def run_test(test: Pod, address: str) -> "subprocess.CompletedProcess[str]":
    """Run what the container of `helm test` runs, with the address of a node in place of the service's."""
    assert test.container["command"] == ["python", "-c"]
    assert test.environment["RELAY_TEST_URL"] == "http://trial-relay:80"
    return subprocess.run(
        [sys.executable, "-c", *map(test.at_root, test.container["args"])],
        env={**test.run_environment(), "RELAY_TEST_URL": address},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_node_drains_and_finishes_its_stream_within_its_grace_period(
    newest_helm: Helm, redis_server: RedisServer, tmp_path: Path
) -> None:
    port, bytes_ = free_port(), b"x" * 1_000_000
    own = {
        "redis": {"trial": False},
        "settings": {
            "RELAY_PORT": port,
            "RELAY_HOST": "127.0.0.1",
            "RELAY_PREFIX": "test-drain",
            "RELAY_REDIS_URL": redis_server.url,
            "RELAY_DRAIN_DELAY": 1,
            "RELAY_DRAIN_WAIT": 1,
        },
    }
    manifests = newest_helm.render(own)
    node = RunningNode(Pod(only(manifests, "Deployment")["spec"]["template"]["spec"], secrets_of(manifests), tmp_path))
    try:
        node.wait_ready()
        address = f"{url(node)}/{httpx.post(url(node) + '/token').text.strip()}/file"
        go_on, answers = threading.Event(), list[httpx.Response]()

        def body() -> Iterator[bytes]:
            yield bytes_
            assert go_on.wait(30)
            yield bytes_

        sender = threading.Thread(target=lambda: answers.append(httpx.put(address, content=body(), timeout=60)))
        sender.start()
        with httpx.stream("GET", address, params={"wait": 30}, timeout=60) as receiver:
            arriving = receiver.iter_bytes()
            arrived = len(next(arriving))
            node.process.send_signal(signal.SIGTERM)  # what Kubernetes sends at the start of the grace period
            wait_until(lambda: node.probe("readiness") != httpx.codes.OK, "the node to be unready")
            assert node.probe("liveness") == httpx.codes.OK
            go_on.set()
            arrived += sum(map(len, arriving))
        sender.join()
        assert arrived == 2 * len(bytes_)
        assert answers[0].text == f"delivered {arrived} bytes\n"
        assert node.process.wait(timeout=node.pod.grace) == 0
    finally:
        node.stop()


def test_one_node_alone_serves_https(newest_helm: Helm, tmp_path: Path) -> None:
    certificate, key = map(Path, make_certificate(tmp_path))
    held = {"relay-certificate": {"tls.crt": certificate.read_text(), "tls.key": key.read_text()}}
    own = {"settings": {"RELAY_PORT": free_port(), "RELAY_HOST": "127.0.0.1"}}
    manifests = newest_helm.render(VALUES["alone"], own)
    node = RunningNode(Pod(only(manifests, "Deployment")["spec"]["template"]["spec"], held, tmp_path / "root"))
    try:
        node.wait_ready()
        assert ", alone" in node.log()
    finally:
        node.stop()


def test_redis_for_trials_is_as_redis_conf_says(newest_helm: Helm, tmp_path: Path) -> None:
    manifests = newest_helm.render(VALUES["defaults"])
    pod = Pod(only(manifests, "Deployment", "trial-relay-redis")["spec"]["template"]["spec"], {}, tmp_path)
    assert pod.container["command"] == ["redis-server"]
    conf = (ROOT / "deploy" / "redis.conf").read_text()
    wanted = {name: value.strip('"') for name, value in re.findall(r"^([a-z-]+) (.+)$", conf, re.MULTILINE)}
    for name in ("protected-mode", "bind", "daemonize", "logfile"):  # this test's own, or Redis' defaults
        del wanted[name]
    wanted["maxmemory"] = str(256 * 2**20)
    with RedisServer(newest("the Redis of the chart was not started"), *pod.container["args"]) as server:
        with server.client() as client:
            assert {name: client.config_get(name)[name] for name in wanted} == wanted
        environment = {**os.environ, "RELAY_REDIS_URL": server.url}
        checked = subprocess.run(
            [sys.executable, "-m", "relay", "check"], env=environment, capture_output=True, check=False
        )
        assert checked.returncode == 0, checked.stdout + checked.stderr


def test_nodes_look_for_that_redis_where_its_service_is(newest_helm: Helm) -> None:
    manifests = newest_helm.render(VALUES["defaults"])
    (container,) = only(manifests, "Deployment")["spec"]["template"]["spec"]["containers"]
    service = only(manifests, "Service", "trial-relay-redis")
    address = f"redis://{service['metadata']['name']}:{service['spec']['ports'][0]['port']}/0"
    assert {"name": "RELAY_REDIS_URL", "value": address} in container["env"]
