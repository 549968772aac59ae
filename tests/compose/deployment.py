"""The deployment of docker-compose.yml, started for real from a copy of the working tree."""

import json
import os
import pty
import shutil
import stat
import subprocess
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tests.support.checkout import copy_checkout
from tests.support.cluster import Curl, curl, id_of
from tests.support.wait import wait_until

#: Where docker-compose.yml publishes the balancer.
URL = "http://127.0.0.1:4000"
FILES = {"haproxy": ["docker-compose.yml"], "nginx": ["docker-compose.yml", "deploy/docker-compose.nginx.yml"]}


def why_not() -> str:
    """Return why nothing can be deployed on this machine, or an empty string if it can."""
    if not shutil.which("docker") or _fails("docker", "info"):
        return "no Docker engine: the compose cluster was not tested"
    if not shutil.which("docker-compose") and _fails("docker", "compose", "version"):
        return "neither docker-compose nor docker compose: the compose cluster was not tested"
    return ""


def _fails(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode != 0


class Deployment:
    """One `docker-compose up`, with helpers to control and inspect it."""

    def __init__(self, folder: Path, balancer: str) -> None:
        self.folder = folder
        self.balancer = balancer
        copy_checkout(folder)
        tools = folder / ".tools"
        tools.mkdir()
        if not shutil.which("docker-compose"):  # Compose v2 alone: give it the name that the README uses
            shim = tools / "docker-compose"
            shim.write_text('#!/bin/sh\nexec docker compose "$@"\n')
            shim.chmod(shim.stat().st_mode | stat.S_IXUSR)
        self.environment = {key: value for key, value in os.environ.items() if not key.startswith("RELAY_")} | {
            # All runs share one name, so that a build reuses the image layers of the last run.
            "COMPOSE_PROJECT_NAME": "relay-tests",
            "COMPOSE_FILE": ":".join(FILES[balancer]),
            "PATH": f"{tools}:{os.environ['PATH']}",
        }

    # -- running commands ----------------------------------------------------------------------------------

    def run(self, *command: str) -> str:
        """Run a command in the checkout and return what it prints. Fail if the command fails."""
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=600, check=False
        )
        assert done.returncode == 0, f"{command}:\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def compose(self, *arguments: str) -> str:
        return self.run("docker-compose", *arguments)

    def type_in(self, script: str) -> str:
        """Run a script at a terminal, as if somebody typed it. Return what the terminal showed."""
        ours, theirs = pty.openpty()
        shown: list[bytes] = []
        with subprocess.Popen(
            ["bash", "-ec", script],
            cwd=self.folder,
            env=self.environment,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        ) as shell:
            reader = threading.Thread(target=_read_all, args=(ours, shown))
            reader.start()
            os.close(theirs)
            try:
                status = shell.wait(timeout=600)
            finally:
                shell.kill()
                reader.join(timeout=10)
                os.close(ours)
        output = b"".join(shown).decode(errors="replace")
        assert status == 0, output
        return output

    # -- the life of the deployment ------------------------------------------------------------------------

    def up(self) -> None:
        """Start what is missing, and wait until three nodes answer through the balancer."""
        if len(self.nodes_answering(60)) == 3:
            return
        self.compose("up", "-d", "--scale", "relay=3")
        wait_until(lambda: len(self.nodes_answering(60)) == 3, "three nodes to answer through the balancer", timeout=30)

    def down(self) -> None:
        self.compose("down", "--volumes", "--remove-orphans", "--timeout", "1")

    def containers(self, service: str) -> list[str]:
        """Return the ids of the service's containers, running or not."""
        return self.compose("ps", "-q", service).split()

    def inspect(self, container: str) -> dict[str, dict[str, object]]:
        found: list[dict[str, dict[str, object]]] = json.loads(self.run("docker", "inspect", container))
        return found[0]

    def address(self, service: str) -> str:
        """Return the address of the service's first container in the Docker network."""
        networks = self.inspect(self.containers(service)[0])["NetworkSettings"]["Networks"]
        assert isinstance(networks, dict)
        return str(next(iter(networks.values()))["IPAddress"])

    def nodes_answering(self, requests: int, path: str = "/healthz") -> set[str]:
        """Send this many requests on one connection, and return the nodes that answer. A failure counts as node ''."""
        wanted = ["-o", os.devnull, URL + path] * requests
        answers = curl("-w", "%{http_code} %header{relay-node}\n", *wanted).stdout.decode().splitlines()
        return {node if status == "200" else "" for status, _, node in (line.partition(" ") for line in answers)}

    def logs(self) -> str:
        return self.compose("logs", "--no-color")

    # -- transfers -----------------------------------------------------------------------------------------

    def token(self) -> str:
        answer = curl("--fail-with-body", "-X", "POST", f"{URL}/token")
        assert answer.returncode == 0, (answer.stdout, answer.stderr)
        return answer.stdout.decode().strip()

    def redis(self, *command: str) -> list[str]:
        """Ask Redis with redis-cli, as an operator would."""
        return self.compose("exec", "-T", "redis", "redis-cli", *command).splitlines()

    def nodes_of(self, token: str, names: Sequence[str]) -> dict[str, tuple[str, str]]:
        """Return the uploader's and the downloader's node of each transfer; '' stands for a side that is not there."""
        asking = (
            "return {"
            + ",".join(f"redis.call('HMGET',KEYS[{i}],'uploader','downloader')" for i in range(1, len(names) + 1))
            + "}"
        )
        keys = [f"relay:transfer:{{{id_of(token)}}}:{name}" for name in names]
        said = self.redis("EVAL", asking, str(len(keys)), *keys)
        return {name: (said[2 * i], said[2 * i + 1]) for i, name in enumerate(names)}

    def wait_state(self, token: str, state: str, names: Iterable[str]) -> None:
        """Wait until the named transfers are in the state."""

        def missing() -> set[str]:
            said = json.loads(curl("-H", "Accept: application/json", f"{URL}/{token}").stdout)
            return set(names) - {transfer["name"] for transfer in said["transfers"] if transfer["state"] == state}

        wait_until(lambda: not missing(), f"{names} to be {state}")

    def left_over(self) -> list[str]:
        """Return the keys of transfers. Between tests there must be none."""
        keys = self.redis("--scan", "--pattern", "relay:*")
        return [key for key in keys if key.split(":")[1:2] and key.split(":")[1] in ("transfer", "chunks", "acks")]


def _read_all(descriptor: int, into: list[bytes]) -> None:
    while True:
        try:
            piece = os.read(descriptor, 65536)
        except OSError:  # on Linux, this means that the other end of the terminal is closed
            return
        if not piece:
            return
        into.append(piece)


def upload(path: Path | str, token: str, name: str, *options: str, pipe: bool = False) -> Curl:
    """Start an upload with curl. The last line that curl prints has the HTTP status and `Relay-Node`."""
    return Curl("-T", path, *options, "-w", "\n%{http_code} %header{relay-node}", f"{URL}/{token}/{name}", pipe=pipe)


def download(into: Path, token: str, name: str, *options: str, query: str = "") -> Curl:
    """Start a download with curl. The last line that curl prints has the HTTP status and `Relay-Node`."""
    return Curl("-o", into, *options, "-w", "\n%{http_code} %header{relay-node}", f"{URL}/{token}/{name}{query}")


def answer(client: Curl) -> tuple[int, str, str]:
    """Wait until the client exits. Return its exit status, the HTTP status, and the node that answered."""
    code, output = client.finish()
    status, _, node = output.decode(errors="replace").rpartition("\n")[2].partition(" ")
    return code, status, node


def settings_of(inspected: Mapping[str, dict[str, object]]) -> dict[str, object]:
    """Merge the two dictionaries in which Docker describes how a container was set up."""
    return {**inspected["Config"], **inspected["HostConfig"]}
