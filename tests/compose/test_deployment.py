"""How the containers are set up: privileges, ports, forwarding headers, logs, HTTPS."""

import re
from pathlib import Path

import pytest

from tests.compose.deployment import URL, Deployment, answer, download, settings_of, upload
from tests.support.cluster import Curl, curl, id_of, random_file
from tests.support.pages import OPERATORS, shell_blocks
from tests.support.wait import wait_until


@pytest.mark.parametrize("service", ["balancer", "relay", "redis"])
def test_no_service_may_do_more_than_it_must(cluster: Deployment, service: str) -> None:
    for container in cluster.containers(service):
        settings = settings_of(cluster.inspect(container))
        assert settings["ReadonlyRootfs"] is True
        assert settings["CapDrop"] == ["ALL"]
        assert settings["SecurityOpt"] == ["no-new-privileges:true"]
        assert str(settings["User"]).partition(":")[0] not in ("", "0", "root")
        assert settings["RestartPolicy"] == {"Name": "unless-stopped", "MaximumRetryCount": 0}
        assert int(str(settings["Memory"])) > 0
        assert int(str(settings["PidsLimit"])) > 0


def test_only_the_balancer_is_published(cluster: Deployment) -> None:
    published = {
        service: [port for container in cluster.containers(service) for port in _published(cluster, container)]
        for service in ("balancer", "relay", "redis")
    }
    assert published.pop("balancer") == [("4000/tcp", [{"HostIp": "127.0.0.1", "HostPort": "4000"}])]
    assert published == {"relay": [], "redis": []}


def _published(cluster: Deployment, container: str) -> list[tuple[str, object]]:
    ports = cluster.inspect(container)["NetworkSettings"]["Ports"]
    assert isinstance(ports, dict)
    return [(port, bound) for port, bound in ports.items() if bound]


def test_the_balancer_is_healthy(cluster: Deployment) -> None:
    (balancer,) = cluster.containers("balancer")
    health = ("docker", "inspect", "-f", "{{.State.Health.Status}}", balancer)
    wait_until(lambda: cluster.run(*health) == "healthy\n", "the balancer's health check", timeout=20)
    assert cluster.run("docker", "exec", balancer, "true") == ""
    assert "balancerz" not in cluster.compose("logs", "--no-color", "balancer")


def test_the_image_contains_no_compiler_and_no_pip(cluster: Deployment) -> None:
    wanted = "for tool in cc gcc c++ g++ make cargo; do command -v $tool; done; ls /venv/bin | grep -x 'pip.*' || true"
    assert cluster.run("docker", "exec", cluster.containers("relay")[0], "sh", "-c", wanted) == ""


def test_a_node_has_time_to_drain_before_it_is_killed(cluster: Deployment) -> None:
    for container in cluster.containers("relay"):
        settings = settings_of(cluster.inspect(container))
        environment = dict(entry.partition("=")[::2] for entry in _list(settings["Env"]))
        # After a node has cut off its streams, it exits within `_GRACE` of relay/cli/serve.py: 10 s.
        assert int(str(settings["StopTimeout"])) >= float(environment["RELAY_DRAIN_TIMEOUT"]) + 10


def _list(value: object) -> list[str]:
    assert isinstance(value, list)
    return value


def test_the_nodes_trust_the_balancers_address_and_no_other(cluster: Deployment) -> None:
    (balancer,) = cluster.containers("balancer")
    networks = cluster.inspect(balancer)["NetworkSettings"]["Networks"]
    assert isinstance(networks, dict)
    addresses = {network["IPAddress"] for network in networks.values()}
    for container in cluster.containers("relay"):
        environment = _list(settings_of(cluster.inspect(container))["Env"])
        assert [f"RELAY_TRUSTED_PROXIES={address}" for address in addresses] == [
            entry for entry in environment if entry.startswith("RELAY_TRUSTED_PROXIES=")
        ]


def test_a_clients_own_forwarding_headers_do_not_reach_the_nodes(cluster: Deployment) -> None:
    """Read the running balancer's configuration, because a node does not show the headers that it received."""
    (balancer,) = cluster.containers("balancer")
    mounted = {"haproxy": "/usr/local/etc/haproxy/haproxy.cfg", "nginx": "/etc/nginx/nginx.conf"}[cluster.balancer]
    text = cluster.run("docker", "exec", balancer, "cat", mounted)
    replaces = {
        "haproxy": r"http-request set-header X-Forwarded-For %\[src\]",
        "nginx": r"proxy_set_header X-Forwarded-For \$remote_addr;",
    }[cluster.balancer]
    assert re.search(rf"^\s+{replaces}$", text, re.MULTILINE)
    assert not re.search(r"^\s+(option forwardfor|.*\$proxy_add_x_forwarded_for)", text, re.MULTILINE)


def test_no_log_has_a_token_in_full(cluster: Deployment, tmp_path: Path) -> None:
    token = cluster.token()
    source = random_file(tmp_path / "source", 20_000)
    with upload(source, token, "logged") as up, download(tmp_path / "got", token, "logged") as down:
        assert answer(down)[:2] == answer(up)[:2] == (0, "200")
    curl(f"{URL}/{token}/nothing-there?wait=0")
    curl(f"{URL}//{token}/odd")
    curl("-H", "Host:", f"{URL}/{token}/bad")
    curl("-H", f"X-Request-ID: {token}", f"{URL}/{token}/nothing-there?wait=0")
    logs = cluster.logs()
    assert '"outcome": "complete"' in logs
    assert "node=" in logs
    assert token not in logs


def test_who_took_a_transfer(cluster: Deployment, tmp_path: Path) -> None:
    """Paste the recipe of the operators' page. The requests have ids of their clients, so that the test knows them."""
    token, source = cluster.token(), random_file(tmp_path / "source", 20_000)
    sent, taken = ("-H", "X-Request-ID: sent-by-me"), ("-H", "X-Request-ID: taken-by-me")
    with upload(source, token, "who", *sent) as up, download(tmp_path / "got", token, "who", *taken) as down:
        assert answer(down)[:2] == answer(up)[:2] == (0, "200")
    (recipe,) = shell_blocks(OPERATORS, "Logs")

    def shown() -> list[str]:
        lines = cluster.run("bash", "-c", f"TOKEN={token}\nNAME=who\n{recipe}").splitlines()
        return lines if len(lines) >= 7 else []

    made, joined, claimed, *about = wait_until(shown, "the lines about a token and about two requests")
    assert '"token made"' in made
    assert f'"token": "{id_of(token)}"' in made
    for line, message, request in ((joined, "joined", "taken-by-me"), (claimed, "claimed", "sent-by-me")):
        assert f'"message": "{message}", ' in line
        assert f'"request": "{request}"' in line
        assert re.search(r'"address": "[0-9.]+"', line)
    for method, request in (("PUT", "sent-by-me"), ("GET", "taken-by-me")):
        by_node = [line for line in about if f'"method": "{method}"' in line and f'"request": "{request}"' in line]
        by_balancer = [line for line in about if f" {method} 200 request={request} " in line]
        assert (len(by_node), len(by_balancer)) == (1, 1)
        (address,) = re.findall(r'"address": "([0-9.]+)"', by_node[0])
        assert re.search(rf"\| {re.escape(address)}[: ]", by_balancer[0])
    assert len(about) == 4


def test_https_by_mounting_a_certificate(cluster: Deployment, tmp_path: Path) -> None:
    if cluster.balancer == "nginx":
        pytest.skip("HTTPS at nginx is a comment in deploy/nginx.conf")
    key, certificate, both = (tmp_path / name for name in ("key.pem", "certificate.pem", "relay.pem"))
    cluster.run(
        *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"),
        *("-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)),
    )
    both.write_bytes(certificate.read_bytes() + key.read_bytes())
    plain = dict(cluster.environment)
    cluster.environment["COMPOSE_FILE"] += ":deploy/docker-compose.tls.yml"
    cluster.environment |= {"RELAY_CERTIFICATE": str(both), "RELAY_PUBLISH_TLS": "127.0.0.1:4443"}
    try:
        cluster.compose("up", "-d", "--scale", "relay=3")
        trust = ("--cacert", str(certificate))
        url = "https://localhost:4443"
        wait_until(lambda: curl(*trust, "-f", f"{url}/readyz").returncode == 0, "HTTPS")
        token = curl(*trust, "-X", "POST", f"{url}/token").stdout.decode().strip()
        source = random_file(tmp_path / "source", 3_000_000)
        with Curl(*trust, "-T", source, f"{url}/{token}/x") as up:
            got = curl(*trust, f"{url}/{token}/x?wait=20")
            assert up.finish() == (0, b"delivered 3000000 bytes\n")
        assert got.stdout == source.read_bytes()
        assert curl(f"{URL}/readyz").stdout == b"ready\n"
    finally:
        cluster.environment = plain
        cluster.compose("up", "-d", "--scale", "relay=3")
