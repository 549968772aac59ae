"""nginx as deploy/nginx.conf has it, as a process before one node of this machine."""

import os
import shutil
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.support.cluster import NodeProcess
from tests.support.ports import free_port
from tests.support.wait import wait_until

CONFIGURATION = Path(__file__).parents[2] / "deploy" / "nginx.conf"


class Nginx:
    """One nginx; the test is skipped where there is none."""

    def __init__(self, node: NodeProcess, folder: Path) -> None:
        program = shutil.which("nginx")
        if program is None:
            pytest.skip("no nginx on PATH: deploy/nginx.conf was not tested without Docker")
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        text = CONFIGURATION.read_text()
        for old, new in (
            ("pid /tmp/", f"pid {folder}/"),
            ("_temp_path /tmp/", f"_temp_path {folder}/"),
            ("listen 4000 backlog=4096", f"listen 127.0.0.1:{self.port}"),
            ("worker_processes auto", "worker_processes 1"),
            ("worker_rlimit_nofile 20000;", ""),  # more than a container may have
            ("/dev/stdout", "/dev/null"),
            ("proxy_pass http://$nodes:4000", f"proxy_pass http://127.0.0.1:{node.port}"),
        ):
            assert old in text, old
            text = text.replace(old, new)
        (folder / "nginx.conf").write_text(text)
        # Its workers would be another user, who may not write to the folder.
        main = "daemon off;" + (" user root;" if os.geteuid() == 0 else "")
        command = [program, "-e", f"{folder}/error.log", "-c", f"{folder}/nginx.conf", "-g", main]
        self.process = subprocess.Popen(command)
        wait_until(self._is_ready, "nginx and its node")

    def _is_ready(self) -> bool:
        try:
            return httpx.get(self.url + "/readyz").status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)
