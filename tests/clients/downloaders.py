"""Clients, and how each is told to download one URL into one file."""

import functools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

_PROGRAMS = Path(__file__).parent / "programs"
#: A Python that has requests with urllib3 1.26, and HTTPie.
_OLD_PYTHON = os.environ.get("RELAY_TEST_OLD_PYTHON", "")
#: The `node_modules` that has undici and axios.
_NODE_MODULES = os.environ.get("RELAY_TEST_NODE_MODULES", "")
_NO_OLD_PYTHON = "RELAY_TEST_OLD_PYTHON names no Python that has requests, urllib3 1.26 and httpie"
_NO_NODE_MODULES = "RELAY_TEST_NODE_MODULES names no node_modules that has undici and axios"


@dataclass(frozen=True)
class Downloader:
    """One client; `arguments` returns those of its program, given the URL, the file and the certificate to trust."""

    name: str
    program: str
    arguments: Callable[[str, str, str], list[str]] = field(compare=False)
    #: What to say if the program is not there.
    missing: str

    def __str__(self) -> str:
        return self.name

    def skip_if_missing(self) -> None:
        if not shutil.which(self.program):
            pytest.skip(f"{self.name} was not tested: {self.missing}")

    def download(self, url: str, file: Path, certificate: str) -> bool:
        """Return whether the client takes what it gets for the whole file."""
        names = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS")
        done = subprocess.run(
            [self.program, *self.arguments(url, str(file), certificate)],
            env=os.environ | dict.fromkeys(names, certificate) | {"NODE_PATH": _NODE_MODULES},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=60,
            check=False,
        )
        return done.returncode == 0


def _curl(url: str, file: str, certificate: str) -> list[str]:
    return ["-sSf", "--cacert", certificate, "-o", file, url]


def _wget(url: str, file: str, certificate: str) -> list[str]:
    return ["-q", "--tries=1", f"--ca-certificate={certificate}", "-O", file, url]


def _aria2(url: str, file: str, certificate: str) -> list[str]:
    return ["-q", "--max-tries=1", f"--ca-certificate={certificate}", "-d", "/", "-o", file[1:], url]


def _httpie(*options: str) -> Callable[[str, str, str], list[str]]:
    fixed = ["-m", "httpie", "--ignore-stdin", "--check-status", *options]
    return lambda url, file, _: [*fixed, "-o", file, url]


def _python(library: str) -> Callable[[str, str, str], list[str]]:
    return lambda url, file, _: [f"{_PROGRAMS}/download.py", library, url, file]


def _node(library: str) -> Callable[[str, str, str], list[str]]:
    return lambda url, file, _: [f"{_PROGRAMS}/download.cjs", library, url, file]


def _java(library: str) -> Callable[[str, str, str], list[str]]:
    source = f"{_PROGRAMS}/Download.java"
    options = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]
    return lambda url, file, _: [
        *options,
        "-cp",
        _compiled("javac", "-d", "{}", source),
        "Download",
        library,
        url,
        file,
    ]


def _go(url: str, file: str, _: str) -> list[str]:
    """Return the arguments of env(1), which runs the compiled program."""
    return [_compiled("go", "build", "-o", "{}/download", f"{_PROGRAMS}/download.go") + "/download", url, file]


@functools.cache
def _compiled(*command: str) -> str:
    """Compile a program, once. Return the folder that `{}` stands for."""
    folder = tempfile.mkdtemp(prefix="relay-clients-")
    environment = os.environ | {"GO111MODULE": "off"}
    subprocess.run([part.replace("{}", folder) for part in command], check=True, env=environment)
    return folder


def _if_found(program: str, needed: str) -> str:
    return program if needed and shutil.which(needed) else ""


_node_if_modules = "node" if _NODE_MODULES else ""
DOWNLOADERS = [
    Downloader("curl", "curl", _curl, "no curl on PATH"),
    Downloader("wget", "wget", _wget, "no wget on PATH"),
    Downloader("aria2", "aria2c", _aria2, "no aria2c on PATH"),
    Downloader("urllib", sys.executable, _python("urllib"), ""),
    Downloader("urllib in pieces", sys.executable, _python("urllib_in_pieces"), ""),
    Downloader("requests", sys.executable, _python("requests"), ""),
    Downloader("requests with urllib3 1.26", _OLD_PYTHON, _python("requests"), _NO_OLD_PYTHON),
    Downloader("HTTPie", _OLD_PYTHON, _httpie(), _NO_OLD_PYTHON),
    Downloader("HTTPie --download", _OLD_PYTHON, _httpie("--download"), _NO_OLD_PYTHON),
    Downloader("httpx", sys.executable, _python("httpx"), ""),
    Downloader("aiohttp", _OLD_PYTHON, _python("aiohttp"), _NO_OLD_PYTHON),
    Downloader("Node fetch", "node", _node("fetch"), "no node on PATH"),
    Downloader("Node http", "node", _node("http"), "no node on PATH"),
    Downloader("undici", _node_if_modules, _node("undici"), _NO_NODE_MODULES),
    Downloader("axios", _node_if_modules, _node("axios"), _NO_NODE_MODULES),
    Downloader("Go", _if_found("env", "go"), _go, "no go on PATH"),
    Downloader("HttpURLConnection", _if_found("java", "javac"), _java("HttpURLConnection"), "no JDK on PATH"),
    Downloader("HttpClient", _if_found("java", "javac"), _java("HttpClient"), "no JDK on PATH"),
]
