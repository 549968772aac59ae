"""nginx with the configuration of deploy/nginx.conf, as a process in front of nodes on this machine."""

import os
from collections.abc import Sequence
from pathlib import Path

from tests.support.balancer import Balancer
from tests.support.cluster import NodeProcess


class Nginx(Balancer):
    """One nginx process. The test is skipped if nginx is not installed.

    `by_transfer`: both clients of a transfer go to one node, as the file's comment says.
    """

    def __init__(self, nodes: Sequence[NodeProcess], folder: Path, *, by_transfer: bool = False) -> None:
        super().__init__("nginx", "nginx.conf", folder)
        hint = "hash $transfer consistent;" if by_transfer else ""
        servers = "".join(f"server 127.0.0.1:{node.port} max_fails=0;" for node in nodes)
        for old, new in (
            ("pid /tmp/", f"pid {folder}/"),
            ("_temp_path /tmp/", f"_temp_path {folder}/"),
            ("listen 4000 backlog=4096", f"listen 127.0.0.1:{self.port}"),
            ("worker_processes auto", "worker_processes 1"),
            ("worker_rlimit_nofile 20000;", ""),  # more than a container may have
            ("/dev/stdout", "/dev/null"),
            ("    server {", f"    upstream nodes {{{hint}{servers}}}\n    server {{"),
            ("proxy_pass http://$nodes:4000", "proxy_pass http://nodes"),
        ):
            assert old in self.text, old
            self.text = self.text.replace(old, new)
        # Otherwise its workers would run as another user, which may not write to the folder.
        main = "daemon off;" + (" user root;" if os.geteuid() == 0 else "")
        self.start("-e", f"{folder}/error.log", "-g", main, "-c")
