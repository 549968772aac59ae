"""HAProxy with the configuration of deploy/haproxy.cfg, as a process in front of nodes on this machine."""

import re
import shutil
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.support.cluster import Cluster
from tests.support.ports import free_port
from tests.support.wait import wait_until

CONFIGURATION = Path(__file__).parents[2] / "deploy" / "haproxy.cfg"


class HAProxy:
    """One haproxy process. The test is skipped if haproxy is not installed."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        program = shutil.which("haproxy")
        if program is None:
            pytest.skip("no haproxy on PATH: deploy/haproxy.cfg was not tested without Docker")
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        text = CONFIGURATION.read_text().replace("bind :4000", f"bind 127.0.0.1:{self.port}")
        text = re.sub(r"(?ms)^resolvers .*?(?=^\S)", "", text)  # drop the section for Docker's DNS
        servers = [f"    server {node.name} 127.0.0.1:{node.port}" for node in cluster.nodes]
        text, count = re.subn(r"(?m)^    server-template .*$", "\n".join(servers), text)
        assert count == 1
        (folder / "haproxy.cfg").write_text(text)
        self._log = folder / "haproxy.log"
        with self._log.open("w") as log:
            self.process = subprocess.Popen([program, "-db", "-f", str(folder / "haproxy.cfg")], stdout=log)
        wait_until(self._is_ready, "HAProxy and its nodes")

    def _is_ready(self) -> bool:
        try:
            return httpx.get(self.url + "/readyz").status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def lines(self, **wanted: str) -> list[dict[str, str]]:
        """Return the log lines that have these fields. A line begins with `client`, time, `method` and `status`."""
        found = []
        for line in self._log.read_text().splitlines():
            client, _, method, status, *facts = line.split(" ")
            fields = dict(fact.partition("=")[::2] for fact in facts)
            found.append({"client": client, "method": method, "status": status} | fields)
        return [line for line in found if wanted.items() <= line.items()]

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)
