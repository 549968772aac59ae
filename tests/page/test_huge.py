"""A file of 4 GiB goes through the page, and the browser's memory stays flat. Only with RELAY_TEST_FULL=1."""

import os
from pathlib import Path

import psutil
import pytest

from tests.page.conftest import MIB, Side, address_of
from tests.support.cluster import Curl
from tests.support.haproxy import HAProxy

pytestmark = pytest.mark.skipif("RELAY_TEST_FULL" not in os.environ, reason="RELAY_TEST_FULL=1 sends 4 GiB")
SIZE = 4 * 1024 * MIB


def memory(side: Side) -> dict[str, int]:
    """Return the bytes of memory that no process shares, of the browser's processes by their kind."""
    browser = side.context.browser
    assert browser
    session = browser.new_browser_cdp_session()
    found: dict[str, int] = {}
    for process in session.send("SystemInfo.getProcessInfo")["processInfo"]:
        used = psutil.Process(process["id"]).memory_full_info().uss
        found[process["type"]] = found.get(process["type"], 0) + used
    session.detach()
    return found


def test_memory_is_flat(sides: tuple[Side, Side], haproxy: HAProxy, tmp_path: Path) -> None:
    sender, _ = sides
    file = tmp_path / "huge"
    with file.open("wb") as sparse:
        sparse.truncate(SIZE)
    link = sender.send(haproxy.url, file)
    sender.wait_state("waiting")
    seen = [memory(sender)]
    with Curl("-f", "-w", "%{size_download}", "-o", "/dev/null", address_of(link, haproxy.url)) as download:
        while download.process.poll() is None:
            sender.page.wait_for_timeout(1000)
            seen.append(memory(sender))
        assert download.finish() == (0, str(SIZE).encode())
    sender.wait_state("delivered")
    most = {kind: max(each.get(kind, 0) for each in seen) for kind in seen[0]}
    for kind, used in seen[0].items():
        print(f"{kind}: {used / MIB:.0f} MiB before, {most[kind] / MIB:.0f} MiB at most")
        assert most[kind] < used + 100 * MIB
