"""Transfers through the balancer arrive whole and without delay, between any two nodes, and breaks are reported."""

import array
import fcntl
import hashlib
import json
import signal
import socket
import termios
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from tests.compose.deployment import URL, Deployment, answer, download, upload
from tests.support.cluster import Curl, curl, random_file
from tests.support.wait import wait_until

_COUNT = 60
_SIZE = 8 * 1024 * 1024


def _transfer(token: str, folder: Path, number: int) -> tuple[str, str]:
    """Run one transfer and return the two nodes. Even numbers have an unknown length."""
    source, target = random_file(folder / f"{number}.sent", _SIZE), folder / f"{number}.got"
    options = ("-H", "Transfer-Encoding: chunked") if number % 2 == 0 else ()
    with (
        upload(source, token, f"{number}", *options) as up,
        download(target, token, f"{number}", query="?wait=20") as down,
    ):
        got, sent = answer(down), answer(up)
    assert (got[:2], sent[:2]) == ((0, "200"), (0, "200")), f"transfer {number}: download {got}, upload {sent}"
    assert hashlib.sha256(target.read_bytes()).digest() == hashlib.sha256(source.read_bytes()).digest()
    source.unlink()
    target.unlink()
    return sent[2], got[2]


def test_60_transfers_arrive_whole(cluster: Deployment, tmp_path: Path) -> None:
    token = cluster.token()
    with ThreadPoolExecutor(10) as pool:
        nodes = list(pool.map(lambda number: _transfer(token, tmp_path, number), range(_COUNT)))
    assert len({node for pair in nodes for node in pair}) == 3
    apart = sum(uploader != downloader for uploader, downloader in nodes)
    print(f"{cluster.balancer}: {apart} of {_COUNT} transfers had their clients on different nodes")
    # HAProxy sends both clients of a transfer to one node, and nginx each to any.
    assert apart == 0 if cluster.balancer == "haproxy" else apart >= _COUNT / 3


def test_requests_on_one_connection_go_to_every_node(cluster: Deployment) -> None:
    """The balancer has no stickiness of any kind. nginx picks at random, so with few requests it could miss a node."""
    assert len(cluster.nodes_answering(60)) == 3


def test_every_byte_passes_at_once(cluster: Deployment, tmp_path: Path) -> None:
    token = cluster.token()
    with upload("-", token, "live", pipe=True) as up, Curl("-N", f"{URL}/{token}/live?wait=20") as down:
        for piece in (b"a", b"b", b"c" * 5000):
            up.write(piece)
            assert down.read(len(piece)) == piece  # the upload is still open, so no buffer has been flushed at its end
        up.close()
        assert answer(up)[:2] == (0, "200")
        assert down.finish()[0] == 0


def test_continue_is_passed_on_when_there_is_a_downloader(cluster: Deployment, tmp_path: Path) -> None:
    if cluster.balancer == "nginx":
        pytest.skip("nginx answers 100 Continue itself")
    token = cluster.token()
    source, trace = random_file(tmp_path / "source", 3000), tmp_path / "trace"
    patient = ("-H", "Expect: 100-continue", "--expect100-timeout", "60", "--stderr", str(trace), "-v")
    with upload(source, token, "polite", *patient) as up:
        cluster.wait_state(token, "waiting", ["polite"])
        assert "100 Continue" not in trace.read_text()
        with download(tmp_path / "got", token, "polite") as down:
            assert answer(down)[:2] == (0, "200")
        assert answer(up)[:2] == (0, "200")
        assert "100 Continue" in trace.read_text()


def test_a_download_whose_upload_broke_never_looks_complete(cluster: Deployment, tmp_path: Path) -> None:
    token = cluster.token()
    source = tmp_path / "source"
    with source.open("wb") as file:
        file.truncate(1024 * 1024 * 1024)
    for name, upload_of in (("known", source), ("unknown", Path("-"))):
        with (
            upload(upload_of, token, name, pipe=name == "unknown") as up,
            Curl("-N", f"{URL}/{token}/{name}?wait=20") as down,
        ):
            if name == "unknown":
                up.write(b"x" * 1_000_000)
            assert down.read(1000)
            up.process.send_signal(signal.SIGINT)
            assert down.finish()[0] == 18


@pytest.mark.parametrize("framing", ["known", "unknown"])
def test_an_upload_whose_download_broke_is_told_so(cluster: Deployment, tmp_path: Path, framing: str) -> None:
    """The download is killed in the middle, when far more is to come than all buffers on the way hold."""
    token = cluster.token()
    source = tmp_path / "source"
    with source.open("wb") as file:
        file.truncate(200 * 1024 * 1024)
    chunked = ("-H", "Transfer-Encoding: chunked") if framing == "unknown" else ()
    with (
        upload(source, token, "half", *chunked) as up,
        Curl("-N", "--limit-rate", "5M", f"{URL}/{token}/half?wait=20") as down,
    ):
        assert down.read(1000)
        down.process.send_signal(signal.SIGKILL)
        code, status, _ = answer(up)
        # Without a length it may come from a pipe, which curl cannot send again.
        assert (code, status) == (0, "424" if framing == "unknown" else "502")


@pytest.mark.parametrize(
    ("size", "options"),
    [
        pytest.param(3_000, (), id="3kB"),
        pytest.param(50_000_000, (), id="50MB"),
        pytest.param(50_000_000, ("-H", "Expect:"), id="50MB-without-Expect"),
    ],
)
def test_the_name_of_a_waiting_upload_that_was_interrupted_is_free(
    cluster: Deployment, tmp_path: Path, size: int, options: tuple[str, ...]
) -> None:
    """The name is free soon after the next upload asks for it, because the relay then checks whether the first uploader
    still lives. That takes a second or two; ten are promised, and a busy machine needs some of them to pass what lies
    in the buffers on the way.
    """
    token = cluster.token()
    first, second = random_file(tmp_path / "first", size), random_file(tmp_path / "second", 1234)
    with upload(first, token, "name", *options) as interrupted:
        cluster.wait_state(token, "waiting", ["name"])
        _wait_stuck(interrupted, size)
        interrupted.process.send_signal(signal.SIGINT)
        interrupted.finish()
    began = time.monotonic()
    with _claimed(cluster, second, token, deadline=began + 10) as up:
        print(f"{cluster.balancer}: the name was free {time.monotonic() - began:.2f} s after the next upload asked")
        with download(tmp_path / "got", token, "name") as down:
            assert answer(down)[:2] == (0, "200")
        assert answer(up)[:2] == (0, "200")
    assert (tmp_path / "got").read_bytes() == second.read_bytes()


def _claimed(cluster: Deployment, source: Path, token: str, *, deadline: float) -> Curl:
    """Try to upload until the upload gets the name. Fail if `deadline` passes first."""
    while True:
        up = upload(source, token, "name")
        wait_until(lambda: up.process.poll() is not None or _waits(token, source.stat().st_size), "an answer")  # noqa: B023
        if up.process.poll() is None and time.monotonic() <= deadline:
            return up
        with up:
            said = answer(up)
        assert time.monotonic() <= deadline, f"the name was not free after ten seconds: {said}"


def _waits(token: str, length: int) -> bool:
    said = json.loads(curl("-H", "Accept: application/json", f"{URL}/{token}").stdout)
    return [(transfer["state"], transfer["length"]) for transfer in said["transfers"]] == [("waiting", length)]


def _wait_stuck(client: Curl, size: int) -> None:
    """Wait until curl has read all of a small file, or as much of a large one as the buffers on the way hold."""
    process = psutil.Process(client.process.pid)
    read, since = 0, time.monotonic()

    def stuck() -> bool:
        nonlocal read, since
        now = process.io_counters().read_chars
        if now != read:
            read, since = now, time.monotonic()
        return read > min(size, 1_000_000) and time.monotonic() - since > 0.3

    wait_until(stuck, "the buffers on the way to be full")


def test_when_the_uploader_is_told_a_slow_downloaders_machine_has_all_but_a_quarter_of_a_megabyte(
    cluster: Deployment, tmp_path: Path
) -> None:
    """The rest is in the balancer and its kernel (tcp_notsent_lowat). What the downloader's own kernel has taken is on
    the downloader's machine. The download goes straight to the balancer's container, because connections to 127.0.0.1
    pass through Docker's userland proxy, which takes megabytes itself."""
    size, rate = 5_000_000, 1_000_000
    token, source = cluster.token(), random_file(tmp_path / "source", size)
    with upload(source, token, "slow") as up, socket.create_connection((cluster.address("balancer"), 4000)) as down:
        down.sendall(f"GET /{token}/slow?wait=20 HTTP/1.1\r\nHost: relay\r\n\r\n".encode())
        read, began = len(down.recv(4096).partition(b"\r\n\r\n")[2]), time.monotonic()
        down.settimeout(1)
        while up.process.poll() is None and read < size:
            if read <= rate * (time.monotonic() - began):
                read += len(down.recv(4096))
            else:
                time.sleep(0.001)  # this sets the pace of the download; it does not wait for a condition
        in_its_kernel = array.array("i", [0])
        fcntl.ioctl(down.fileno(), termios.FIONREAD, in_its_kernel)
        assert answer(up)[:2] == (0, "200")
    print(f"{cluster.balancer}: {size - read} bytes not read, {in_its_kernel[0]} of them in the downloader's kernel")
    assert size - read - in_its_kernel[0] <= 256 * 1024
