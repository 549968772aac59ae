"""A pod as Kubernetes would start it, as a process of this machine: its environment, its files and its probes."""

import base64
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx

from tests.deploy.helm import Manifest
from tests.support.wait import wait_until

#: Values of Secrets, by the name of the Secret and the key.
Secrets = Mapping[str, Mapping[str, str]]


def secrets_of(manifests: list[Manifest]) -> dict[str, dict[str, str]]:
    """Return what the Secrets among the objects hold."""
    return {
        one["metadata"]["name"]: {key: base64.b64decode(value).decode() for key, value in one["data"].items()}
        for one in manifests
        if one["kind"] == "Secret"
    }


class Pod:
    """The files and the environment of a pod's one container. `root` stands for the root of its file system."""

    def __init__(self, spec: Mapping[str, Any], secrets: Secrets, root: Path, name: str = "pod") -> None:
        (self.container,) = spec["containers"]
        self.grace = spec.get("terminationGracePeriodSeconds", 30)
        self._root = root
        volumes = {volume["name"]: volume for volume in spec.get("volumes", [])}
        for mount in self.container.get("volumeMounts", []):
            folder = root / mount["mountPath"].lstrip("/")
            folder.mkdir(parents=True)
            for file, content in _files(volumes[mount["name"]], secrets):
                (folder / file).write_text(content)
        given = {one["name"]: one.get("value", name) for one in self.container.get("env", [])}
        self.environment = {key: self.at_root(value) for key, value in given.items()}

    def at_root(self, text: str) -> str:
        """Return a text in which the paths of the container's mounts are those of this machine."""
        for mount in self.container.get("volumeMounts", []):
            text = text.replace(mount["mountPath"], str(self._root / mount["mountPath"].lstrip("/")))
        return text

    def run_environment(self) -> dict[str, str]:
        ours = {key: value for key, value in os.environ.items() if not key.startswith("RELAY_")}
        return ours | self.environment


def _files(volume: Mapping[str, Any], secrets: Secrets) -> Iterator[tuple[str, str]]:
    """Yield the name and the content of every file of a volume."""
    for source in volume.get("projected", {}).get("sources", []):
        secret = source["secret"]
        for item in secret["items"]:
            yield item["path"], secrets[secret["name"]][item["key"]]
    if "secret" in volume:
        yield from secrets[volume["secret"]["secretName"]].items()


class RunningNode:
    """`relay serve`, which is the command of the image, with exactly the environment and the files of a pod."""

    def __init__(self, pod: Pod) -> None:
        self.pod = pod
        self.port = pod.container["ports"][0]["containerPort"]
        self._log = tempfile.TemporaryFile()  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, "-m", "relay", "serve"], env=pod.run_environment(), stderr=self._log
        )

    def probe(self, kind: str) -> int:
        """Ask what a probe of the pod asks, and return the status; 0 if nothing answers."""
        asked = self.pod.container[f"{kind}Probe"]["httpGet"]
        assert asked["port"] == "http"
        try:
            url = f"{asked['scheme'].lower()}://127.0.0.1:{self.port}{asked['path']}"
            return httpx.get(url, verify=False, timeout=5).status_code
        except httpx.TransportError:
            return 0

    def wait_ready(self) -> None:
        wait_until(
            lambda: self.probe("readiness") == httpx.codes.OK or self.process.poll() is not None, "a node to be ready"
        )
        assert self.process.poll() is None, self.log()

    def log(self) -> str:
        return os.pread(self._log.fileno(), 1_000_000, 0).decode()

    def stop(self) -> None:
        """End the process, if it still runs. A second SIGTERM ends the drain."""
        for patience in (0.2, 30):
            if self.process.poll() is None:
                self.process.send_signal(signal.SIGTERM)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.process.wait(timeout=patience)
        self.process.kill()
        self.process.wait()
        self._log.close()
