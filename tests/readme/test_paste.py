"""The commands of the pages, pasted into shells as they stand, in a copy of what is checked out."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.checkout import copy_checkout
from tests.support.pages import API, FRONT, OPERATORS, all_shell_blocks, shell_blocks
from tests.support.wait import wait_until

URL = "http://localhost:4000"
#: What pip prints if it cannot reach an index.
_OFFLINE = ("Could not find a version", "No matching distribution found", "Temporary failure in name resolution")


class Terminal:
    """A shell that runs pasted lines: a context manager, so that nothing that they started outlives it."""

    def __init__(self, lines: str, folder: Path) -> None:
        # Neither this test's settings nor its code: what is pasted uses what it has installed.
        ours = {key: value for key, value in os.environ.items() if not key.startswith(("RELAY_", "PYTHON"))}
        self._shown = tempfile.TemporaryFile()  # noqa: SIM115
        self.process = subprocess.Popen(
            ["bash", "-ec", lines],
            cwd=folder,
            env=ours,
            stdin=subprocess.DEVNULL,
            stdout=self._shown,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *exception: object) -> None:
        with contextlib.suppress(ProcessLookupError):  # all have ended
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._shown.close()

    def shown(self) -> str:
        """Return what was printed so far."""
        return os.pread(self._shown.fileno(), 1_000_000, 0).decode(errors="replace")

    def has_ended(self) -> bool:
        return self.process.poll() is not None

    def finish(self) -> str:
        """Wait for the end of the last line; return what was printed.  Fails if a line failed."""
        wait_until(self.has_ended, "the pasted lines to end", timeout=120)
        assert self.process.returncode == 0, self.shown()
        return self.shown()


def need_ports(*ports: int) -> None:
    for port in ports:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                pytest.skip(f"port {port} is taken: the commands of the pages were not tested")


def is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz").status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A clone, in which the first command of the front page has installed relay and runs a node."""
    need_ports(4000)
    folder = tmp_path_factory.mktemp("clone") / "relay"
    copy_checkout(folder)
    run, _ = shell_blocks(FRONT, "Run it")  # CI runs the other one
    with Terminal(run, folder) as node:
        wait_until(
            lambda: node.has_ended() or is_ready(URL), "pip to install relay and a node to be ready", timeout=300
        )
        if any(line in node.shown() for line in _OFFLINE):
            pytest.skip("no package index can be reached: the commands of the pages were not tested")
        assert not node.has_ended(), node.shown()
        yield folder


def is_waiting(token: Path) -> bool:
    """Return whether an upload waits under the token in this file."""
    if not token.exists() or not token.read_text().strip():
        return False
    listed = httpx.get(f"{URL}/{token.read_text().strip()}", headers={"accept": "application/json"}).json()
    return [transfer["state"] for transfer in listed["transfers"]] == ["waiting"]


def test_the_front_page_carries_a_file_and_a_pipe(checkout: Path) -> None:
    send, receive, pipe = shell_blocks(FRONT, "Use it")
    with Terminal(send, checkout) as second:
        wait_until(lambda: second.has_ended() or is_waiting(checkout / "token"), "the upload to wait", timeout=30)
        with Terminal(f"{receive}{pipe}wait\n", checkout) as third:
            shown = third.finish()
        assert "delivered 50000000 bytes\n" in second.finish()
    assert "The two files are the same.\n" in shown
    assert (checkout / "received.bin").read_bytes() == (checkout / "sample.bin").read_bytes()
    assert "relay/settings.py\n" in shown
    assert "delivered " in shown


def test_a_refused_download_leaves_no_file(checkout: Path) -> None:
    """Why the page says to keep the `-f`."""
    _, receive, _ = shell_blocks(FRONT, "Use it")
    (checkout / "received.bin").unlink(missing_ok=True)
    with Terminal(receive.replace("$(cat token)", "unknown"), checkout) as terminal:
        wait_until(terminal.has_ended, "the refusal")
        assert terminal.process.returncode == 22
    assert not (checkout / "received.bin").exists()


def test_the_operators_page_runs_two_nodes_without_containers(checkout: Path) -> None:
    need_ports(4001, 4002, 6380)
    if not shutil.which("redis-server"):
        pytest.skip("no redis-server on PATH: two nodes without containers were not tested")
    for name in ("sample.bin", "received.bin"):
        (checkout / name).unlink(missing_ok=True)
    lines, *_ = shell_blocks(OPERATORS, "Without containers")  # the others are for systemd
    with Terminal(f". .venv/bin/activate\n{lines}", checkout) as terminal:
        shown = terminal.finish()
    assert "delivered 50000000 bytes\n" in shown
    assert (checkout / "received.bin").read_bytes() == (checkout / "sample.bin").read_bytes()


def test_every_block_of_the_front_page_is_pasted() -> None:
    """Into these tests; `Run a cluster` into tests/compose, and the command that runs all tests into .ci/run."""
    blocks = {heading: len(found) for heading, found in all_shell_blocks(FRONT).items()}
    assert blocks == {"Run it": 2, "Use it": 3, "Run a cluster": 1}


def paste_with_token(checkout: Path, heading: str, before: str = "") -> str:
    """Paste the one block below a heading of the API's page, with a token, and a file that is to be delivered. Return
    what the terminal has shown. `before` has lines that come first, in which TOKEN is the token, too."""
    (checkout / "received.bin").unlink(missing_ok=True)
    (checkout / "sample.bin").write_bytes(os.urandom(3_000_000))
    (commands,) = shell_blocks(API, heading)
    token = httpx.post(f"{URL}/token").text.strip()
    with Terminal(f"TOKEN={token}\n{before}{commands}wait\n", checkout) as terminal:
        shown = terminal.finish()
    assert "delivered 3000000 bytes\n" in shown
    assert (checkout / "received.bin").read_bytes() == (checkout / "sample.bin").read_bytes()
    return shown


def test_the_two_loops_of_the_api_page_carry_a_file(checkout: Path) -> None:
    paste_with_token(checkout, "If a connection breaks")


def test_curl_alone_sends_a_resumable_upload(checkout: Path) -> None:
    download = f'curl -fs -o received.bin "{URL}/$TOKEN/sample.bin?wait=60" &\n'
    paste_with_token(checkout, "Resumable uploads", before=download)


def test_a_link_made_by_the_node_or_by_openssl_receives_the_file(checkout: Path) -> None:
    (checkout / "received.bin").unlink(missing_ok=True)
    (checkout / "sample.bin").write_bytes(os.urandom(3_000_000))
    asked, made = shell_blocks(API, "Links")
    token = httpx.post(f"{URL}/token").text.strip()
    with Terminal(f"TOKEN={token}\n{asked}wait\nASKED=$LINK\n{made}test $LINK = $ASKED\n", checkout) as terminal:
        shown = terminal.finish()
    assert "delivered 3000000 bytes\n" in shown
    assert (checkout / "received.bin").read_bytes() == (checkout / "sample.bin").read_bytes()


def test_curl_and_openssl_compare_a_checksum(checkout: Path) -> None:
    assert "It is the same.\n" in paste_with_token(checkout, "Checksums")
