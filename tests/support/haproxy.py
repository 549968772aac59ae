"""HAProxy with the configuration of deploy/haproxy.cfg, as a process in front of nodes on this machine."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from tests.support.balancer import Balancer
from tests.support.ports import free_port


class Node(Protocol):
    """A server behind it, which listens on 127.0.0.1."""

    name: str
    port: int


class HAProxy(Balancer):
    """One haproxy process. The test is skipped if haproxy is not installed.

    `balance` is RELAY_BALANCE, `front` RELAY_FRONT, and `ready` what a node that is ready answers with 200. If it is
    `monitored`, it serves Prometheus at `metrics_port`.
    """

    def __init__(
        self,
        nodes: Iterable[Node],
        folder: Path,
        *,
        balance: str = "",
        front: str = "",
        ready: str = Balancer.ready,
        monitored: bool = False,
    ) -> None:
        super().__init__("haproxy", "haproxy.cfg", folder)
        self.ready = ready
        text = self.text.replace("bind :4000", f"bind 127.0.0.1:{self.port}").replace(Balancer.ready, ready)
        self.metrics_port = free_port()
        text = text.replace("bind :8405", f"bind 127.0.0.1:{self.metrics_port}")
        if monitored:
            text = text.replace(".if defined(RELAY_MONITORING)", ".if 1")
        text = re.sub(r"(?ms)^resolvers .*?(?=^\S)", "", text)  # drop the section for Docker's DNS
        servers = [f"    server {node.name} 127.0.0.1:{node.port}" for node in nodes]
        self.text, count = re.subn(r"(?m)^    server-template .*$", "\n".join(servers), text)
        assert count == 1
        self.environment |= {"RELAY_BALANCE": balance, "RELAY_FRONT": front}
        self.start("-db", "-f")

    def lines(self, **wanted: str) -> list[dict[str, str]]:
        """Return the log lines that have these fields. A line begins with `client`, time, `method` and `status`."""
        found = []
        for line in self._log.read_text().splitlines():
            client, _, method, status, *facts = line.split(" ")
            fields = dict(fact.partition("=")[::2] for fact in facts)
            found.append({"client": client, "method": method, "status": status} | fields)
        return [line for line in found if wanted.items() <= line.items()]
