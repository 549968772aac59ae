"""The pages in Firefox: from page to page, and through a break."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.page.conftest import address_of, digest
from tests.page.test_breaks import RATE, kill, uploading
from tests.support.cluster import Cluster, Curl
from tests.support.haproxy import HAProxy
from tests.support.wait import wait_until

_SCRIPT = Path(__file__).parent / "firefox.cjs"
_FIREFOX = shutil.which("firefox-esr") or shutil.which("firefox") or ""
#: A folder with Puppeteer, which drives Firefox with WebDriver BiDi. Playwright can drive only builds of its own.
_MODULES = os.environ.get("RELAY_TEST_NODE_MODULES", "")


@pytest.fixture(scope="module", autouse=True)
def program() -> None:
    if not _FIREFOX or not shutil.which("node") or not Path(_MODULES, "puppeteer-core").exists():
        pytest.skip("no firefox, or RELAY_TEST_NODE_MODULES names no node_modules that has puppeteer-core")


@contextlib.contextmanager
def firefox(*arguments: str | Path) -> Iterator["subprocess.Popen[str]"]:
    command = ["node", _SCRIPT, _FIREFOX, *arguments]
    environment = os.environ | {"NODE_PATH": _MODULES}
    with subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as run:
        try:
            yield run
        finally:
            run.terminate()  # Puppeteer then closes its browser


def said(run: "subprocess.Popen[str]") -> str:
    """Return all that is left of what it prints."""
    return run.communicate(timeout=120)[0]


def test_from_page_to_page(haproxy: HAProxy, big_file: Path, tmp_path: Path) -> None:
    with firefox("send", haproxy.url, big_file) as sender:
        assert sender.stdout
        link = sender.stdout.readline().strip()
        with firefox("receive", link, tmp_path) as receiver:
            assert said(receiver) == "whole\n"
        assert said(sender) == "delivered\n"
    assert digest(tmp_path / big_file.name) == digest(big_file)


def test_the_senders_node_is_killed(cluster: Cluster, haproxy: HAProxy, big_file: Path, tmp_path: Path) -> None:
    with firefox("send", haproxy.url, big_file) as sender:
        assert sender.stdout
        link = sender.stdout.readline().strip()
        index = uploading(cluster)
        address = address_of(link, cluster.nodes[1 - index].url)
        with Curl("-f", "--limit-rate", str(RATE), "-o", tmp_path / "got", address) as download:
            wait_until(lambda: (tmp_path / "got").exists() and (tmp_path / "got").stat().st_size, "the first bytes")
            successor = kill(cluster, index)
            assert download.finish() == (0, b"")
        assert said(sender) == "delivered\n"
    assert digest(tmp_path / "got") == digest(big_file)
    successor.wait_ready()
