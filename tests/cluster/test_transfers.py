"""Transfers from one node to another: they arrive whole, in order and promptly, and use bounded memory."""

import hashlib
import os
import random
import re
import shutil
import socket
import statistics
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from relay.buffers import CHUNK
from relay.settings import Settings
from tests.support.cluster import Cluster, Curl, chars_read, curl, id_of
from tests.support.wait import wait_until

MIB = 1024 * 1024
WINDOW: int = Settings.model_fields["window"].default


class Sampler:
    """Samples some numbers repeatedly in a thread while the test runs, and keeps the maximum of each."""

    def __init__(self, *looks: Callable[[], int]) -> None:
        self.most = [0] * len(looks)
        self.samples = 0
        self._looks = looks
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Sampler":
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._done.wait(0.02):
            self.most = [max(most, look()) for most, look in zip(self.most, self._looks, strict=True)]
            self.samples += 1


def in_redis(cluster: Cluster, token: str) -> int:
    """Return how many bytes of the token's chunks are in Redis now."""
    assert cluster.redis is not None
    streams = list(cluster.keys(f"chunks:{{{id_of(token)}}}".replace("{", r"\{").replace("}", r"\}")))
    entries: list[Any] = [entry for key in streams for entry in cluster.redis.xrange(key) or ()]
    return sum(len(fields.get(b"d", b"")) for _, fields in entries)


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@pytest.mark.parametrize("pipe", [False, True], ids=["file", "pipe"])
def test_a_gigabyte_arrives_whole_within_the_window(
    cluster: Cluster, token: str, gigabyte: Path, tmp_path: Path, pipe: bool
) -> None:
    target = tmp_path / "out.bin"
    before = [cluster[0].rss(), cluster[1].rss()]
    with Sampler(lambda: in_redis(cluster, token), cluster[0].rss, cluster[1].rss) as sampler:
        if pipe:
            with gigabyte.open("rb") as source:
                upload = subprocess.Popen(
                    ["curl", "-sS", "-T", "-", cluster.url(0, token, "big.iso")], stdin=source, stdout=subprocess.PIPE
                )
                done = curl("-o", target, cluster.url(1, token, "big.iso"))
                answer, _ = upload.communicate(timeout=60)
        else:
            with Curl("-T", gigabyte, cluster.url(0, token, "big.iso")) as uploading:
                done = curl("-o", target, cluster.url(1, token, "big.iso"))
                answer = uploading.finish()[1]
    assert done.returncode == 0, done
    assert answer == b"delivered 1073741824 bytes\n"
    assert not list(cluster.keys("chunks"))  # the uploader has its response, so the chunks must be gone already
    assert sha256(target) == sha256(gigabyte)
    target.unlink()
    assert sampler.samples > 20
    assert 0 < sampler.most[0] <= WINDOW + CHUNK
    growth = [most - least for most, least in zip(sampler.most[1:], before, strict=True)]
    assert max(growth) <= 64 * MIB, growth


NAMES = [
    "plain.txt",
    "naïve file (1).tar.gz",
    "日本語.txt",
    "100%.bin",
    "a+b&c=d.txt",
    "{x}.txt",
    "semi;colon, 'quote' \"double\".txt",
    "#?*[a].txt",
    "x" * 255,
]


@pytest.mark.parametrize("name", NAMES)
def test_names_survive_exactly(cluster: Cluster, token: str, tmp_path: Path, name: str) -> None:
    path = tmp_path / "source"
    path.write_text("data")
    with Curl("-g", "-T", path, cluster.url(0, token, quote(name, safe=""))) as upload:
        done = curl("-g", "-D", "-", cluster.url(1, token, quote(name, safe="")))
        assert upload.finish() == (0, b"delivered 4 bytes\n")
    head, _, body = done.stdout.partition(b"\r\n\r\n")
    assert body == b"data"
    assert f"filename*=UTF-8''{quote(name, safe='')}\r\n".encode() in head + b"\r\n"


def test_curl_names_the_file_itself_after_a_slash(cluster: Cluster, token: str, tmp_path: Path) -> None:
    path = tmp_path / "naïve file (1).txt"
    path.write_text("data")
    with Curl("-T", path, cluster.url(0, token) + "/") as upload:
        done = curl(cluster.url(1, token, quote(path.name)))
        assert done.stdout == b"data"
        assert upload.finish()[0] == 0


def test_curl_saves_under_the_name(cluster: Cluster, token: str, tmp_path: Path) -> None:
    with Curl("-T", "-", cluster.url(0, token, "report.txt"), pipe=True) as upload:
        upload.close()
        cluster.wait_state(token, "waiting")
        subprocess.run(["curl", "-sSOJ", cluster.url(1, token, "report.txt")], cwd=tmp_path, check=True)
        assert upload.finish()[0] == 0
    assert [path.name for path in tmp_path.iterdir()] == ["report.txt"]


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * MIB])
@pytest.mark.parametrize("pipe", [False, True], ids=["file", "pipe"])
def test_sizes(cluster: Cluster, token: str, tmp_path: Path, size: int, pipe: bool) -> None:
    data = os.urandom(size)
    path = tmp_path / "source"
    path.write_bytes(data)
    with Curl("-T", "-" if pipe else path, cluster.url(0, token, "x"), pipe=pipe) as upload:
        writing = threading.Thread(target=upload.write_all, args=[data])
        if pipe:
            writing.start()
        done = curl("-D", tmp_path / "head", cluster.url(1, token, "x"))
        assert (done.returncode, done.stdout == data) == (0, True)
        if pipe:
            writing.join()  # it closes the pipe, which nobody else may use meanwhile
        assert upload.finish() == (0, f"delivered {size} bytes\n".encode())
    head = (tmp_path / "head").read_text().lower()
    assert ("transfer-encoding: chunked" in head) is pipe
    assert (f"content-length: {size}\n" in head) is not pipe


@pytest.mark.skipif(not shutil.which("wget"), reason="no wget: wget as a client was not tested")
def test_wget(cluster: Cluster, token: str, tmp_path: Path) -> None:
    data, source, target = os.urandom(3 * MIB), tmp_path / "source", tmp_path / "target"
    source.write_bytes(data)
    command = [
        "wget",
        "-q",
        "-O",
        str(tmp_path / "answer"),
        "--method=PUT",
        f"--body-file={source}",
        cluster.url(0, token, "x"),
    ]
    with subprocess.Popen(command) as upload:
        subprocess.run(["wget", "-q", "-O", str(target), cluster.url(1, token, "x")], check=True, timeout=60)
        assert upload.wait(60) == 0
    assert target.read_bytes() == data
    assert (tmp_path / "answer").read_text() == f"delivered {len(data)} bytes\n"


def test_single_bytes_on_a_raw_socket_arrive_one_by_one(cluster: Cluster, token: str) -> None:
    data = b"slow bytes"
    with (
        socket.create_connection(("127.0.0.1", cluster[0].port)) as up,
        socket.create_connection(("127.0.0.1", cluster[1].port)) as down,
    ):
        up.sendall(f"PUT /{token}/x HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n\r\n".encode())
        down.sendall(f"GET /{token}/x HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        reader = down.makefile("rb")
        for i in range(len(data)):
            up.sendall(data[i : i + 1])
            while i == 0 and reader.readline() != b"\r\n":
                pass
            assert reader.read(1) == data[i : i + 1]  # each byte arrives before the next is sent
        down.close()
        reader.close()
        assert b"200 OK" in up.recv(65536)


def test_lines_of_a_pipe_arrive_as_they_are_written(cluster: Cluster, token: str) -> None:
    """As in `while sleep 0.2; do date; done | curl -T -`. The median delay of a line must be below 100 ms."""
    delays = []
    with Curl("-T", "-", cluster.url(0, token, "log"), pipe=True) as upload:
        cluster.wait_state(token, "waiting")
        with Curl("-N", cluster.url(1, token, "log")) as download:
            for number in range(15):
                line = f"line {number}\n".encode()
                written = time.monotonic()
                upload.write(line)
                assert download.read(len(line)) == line
                delays.append(time.monotonic() - written)
                time.sleep(0.2)
            upload.close()
            assert download.finish()[0] == 0
        assert upload.finish()[0] == 0
    print(f"median {statistics.median(delays) * 1000:.1f} ms, worst {max(delays[1:]) * 1000:.1f} ms")
    assert statistics.median(delays[1:]) < 0.1  # the first line also waits for the 100 Continue


def test_a_slow_downloader_slows_the_uploader_and_memory_stays_flat(
    cluster: Cluster, token: str, gigabyte: Path, tmp_path: Path
) -> None:
    with (
        Sampler(lambda: in_redis(cluster, token), cluster[0].rss, cluster[1].rss) as sampler,
        Curl("-T", gigabyte, cluster.url(0, token, "x")) as upload,
    ):
        cluster.wait_state(token, "waiting")
        before = [cluster[0].rss(), cluster[1].rss()]
        with Curl("--limit-rate", "1M", "-o", tmp_path / "out", cluster.url(1, token, "x")):
            wait_until(lambda: (tmp_path / "out").exists() and (tmp_path / "out").stat().st_size > 5 * MIB, "5 MiB")
            early, begun = chars_read(upload), time.monotonic()
            time.sleep(3)
            rate = (chars_read(upload) - early) / (time.monotonic() - begun)
    # Without back-pressure the rate would be a hundred times the limit of 1 MiB/s. It may exceed the limit a little,
    # because the socket buffers let the uploader run ahead.
    assert rate < 8 * MIB, rate
    assert sampler.most[0] <= WINDOW + CHUNK
    assert max(most - least for most, least in zip(sampler.most[1:], before, strict=True)) <= 64 * MIB


def test_between_clients_of_one_node_nothing_goes_through_redis(
    cluster: Cluster, token: str, gigabyte: Path, tmp_path: Path
) -> None:
    """Only the progress of the transfer is written to Redis."""
    redis: Any = cluster.redis
    with Curl("-T", gigabyte, cluster.url(0, token, "x")) as upload:
        with (
            Sampler(lambda: in_redis(cluster, token), cluster[0].rss) as sampler,
            Curl("--limit-rate", "4M", "-o", tmp_path / "out", cluster.url(0, token, "x")) as download,
        ):
            (acks,) = wait_until(lambda: list(cluster.keys("acks")), "the transfer")
            wait_until(lambda: redis.xrevrange(acks, count=1)[0][0] > b"1", "its progress")
            download.process.kill()
        assert upload.finish()[1].startswith(b"The downloader left after ")
        assert sampler.most[0] == 0
        assert sampler.samples > 10


def test_a_hundred_transfers_at_once_over_three_nodes(cluster: Cluster, tmp_path: Path) -> None:
    tokens = [cluster.token() for _ in range(10)]
    chance = random.Random(7)

    def transfer(number: int) -> bool:
        data = os.urandom(chance.randrange(2 * MIB))
        path = tmp_path / f"in-{number}"
        path.write_bytes(data)
        token = tokens[number % len(tokens)]
        with Curl("-T", path, cluster.url(chance.randrange(3), token, f"f{number}")) as upload:
            done = curl(cluster.url(chance.randrange(3), token, f"f{number}") + "?wait=60")
            status, answer = upload.finish()
        return (
            done.returncode == 0
            and done.stdout == data
            and (status, answer) == (0, b"delivered %d bytes\n" % len(data))
        )

    with ThreadPoolExecutor(100) as pool:
        assert all(pool.map(transfer, range(100)))


def test_the_end_of_a_transfer_leaves_one_log_line(cluster: Cluster, token: str) -> None:
    with Curl("-T", "-", cluster.url(0, token, "log%20me.txt"), pipe=True) as upload:
        upload.write(b"12345")
        upload.close()
        assert curl(cluster.url(1, token, "log%20me.txt")).stdout == b"12345"
        assert upload.finish()[0] == 0

    def lines_about_it() -> list[str]:
        about = [line for line in cluster.logs().splitlines() if f"token={id_of(token)}" in line]
        return [line for line in about if " ended " in line]

    lines = wait_until(lines_about_it, "the line about the end")
    assert len(lines) == 1
    assert re.search(r"ended transfer=[0-9a-f]{16} outcome=complete bytes=5 seconds=\d+ ", lines[0])
    assert f" name=log%20me.txt uploader={cluster[0].id} downloader={cluster[1].id} request=" in lines[0]
