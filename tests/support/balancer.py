"""A load balancer with its configuration of deploy/, as a process in front of nodes on this machine."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Self

import httpx
import pytest

from tests.support.ports import free_port
from tests.support.wait import wait_until

_DEPLOY = Path(__file__).parents[2] / "deploy"


class Balancer:
    """One process. The test is skipped if the program is not installed.

    The constructor of a subclass adapts `text`, the configuration in deploy/, to this machine, and calls `start`.
    """

    #: What a node that is ready answers with 200.
    ready = "/readyz"

    def __init__(self, program: str, configuration: str, folder: Path) -> None:
        found = shutil.which(program)
        if found is None:
            pytest.skip(f"no {program} on PATH: deploy/{configuration} was not tested without Docker")
        self._program = found
        #: Variables that the program gets beside those of this process.
        self.environment: dict[str, str] = {}
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.text = (_DEPLOY / configuration).read_text()
        self._file, self._log = folder / configuration, folder / "log"

    def start(self, *options: str) -> None:
        """Start the program with the adapted configuration, and wait until it serves a node that is ready."""
        self._file.write_text(self.text)
        command = [self._program, *options, str(self._file)]
        with self._log.open("w") as log:
            self.process = subprocess.Popen(command, stdout=log, env=os.environ | self.environment)
        wait_until(self._is_ready, f"{self._program} and its nodes")

    def _is_ready(self) -> bool:
        try:
            return httpx.get(self.url + self.ready).status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()
