"""When one side of a transfer fails, the other side is told the truth, and the name is free again."""

import contextlib
import os
import re
import signal
import socket
import struct
import threading
import time
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path

import httpx
import psutil
import pytest

from tests.support.cluster import CUT_OFF, Cluster, Curl, chars_read, curl, id_of
from tests.support.wait import wait_until

MIB = 1024 * 1024
#: The signal that kills a client, and the index of the downloader's node. The uploader is always on node 0.
HOW_AND_WHERE = [(signal.SIGKILL, 1), (signal.SIGINT, 0)]


def assert_free(cluster: Cluster, token: str, name: str) -> None:
    """Check that the name can be used again at once."""
    with Curl("-T", "-", cluster.url(1, token, name), pipe=True) as upload:
        upload.write(b"again")
        upload.close()
        assert curl(cluster.url(2, token, name)).stdout == b"again"
        assert upload.finish() == (0, b"delivered 5 bytes\n")


def size_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


@pytest.mark.parametrize("pipe", [False, True], ids=["with Content-Length", "chunked"])
@pytest.mark.parametrize(("how", "node"), HOW_AND_WHERE)
def test_a_killed_uploader_cuts_the_download(
    cluster: Cluster, token: str, gigabyte: Path, tmp_path: Path, pipe: bool, how: signal.Signals, node: int
) -> None:
    source = gigabyte.open("rb")
    target = tmp_path / "out"
    with source, Curl("-T", "-" if pipe else gigabyte, cluster.url(0, token, "x"), pipe=pipe) as upload:
        if pipe:
            stop = threading.Event()

            def feed() -> None:
                while not stop.is_set():
                    try:
                        upload.write(source.read(MIB))
                    except OSError:  # curl is dead
                        return

            feeder = threading.Thread(target=feed)
            feeder.start()
        with Curl("-o", target, cluster.url(node, token, "x")) as download:
            wait_until(lambda: size_of(target) > 20 * MIB, "20 MiB")
            upload.process.send_signal(how)
            upload.process.wait()
            status, output = download.finish()
            assert status == CUT_OFF, output
        if pipe:
            stop.set()
            feeder.join()
    got = target.read_bytes()
    assert 20 * MIB < len(got) < 1024 * MIB
    with gigabyte.open("rb") as file:
        assert file.read(len(got)) == got  # a prefix, not a byte more or less
    assert_free(cluster, token, "x")


@pytest.mark.parametrize(("how", "node"), HOW_AND_WHERE)
@pytest.mark.parametrize("rate", ["1G", "4M"], ids=["fast", "slow"])
def test_the_uploader_is_told_of_a_killed_downloader(
    cluster: Cluster, token: str, gigabyte: Path, tmp_path: Path, how: signal.Signals, node: int, rate: str
) -> None:
    target = tmp_path / "out"
    with Curl("-T", gigabyte, "-w", "%{http_code}", cluster.url(0, token, "x")) as upload:
        with Curl("--limit-rate", rate, "-o", target, cluster.url(node, token, "x")) as download:
            wait_until(lambda: size_of(target) > 8 * MIB, "8 MiB")
            download.process.send_signal(how)
            download.finish()
        _, output = upload.finish()
    assert output.endswith(b"502"), output
    match = re.search(rb"The downloader left after (\d+) bytes", output)
    assert match
    assert size_of(target) <= int(match[1]) < 1024 * MIB
    assert_free(cluster, token, "x")


@pytest.mark.parametrize("node", [1, 0], ids=["two nodes", "one node"])
@pytest.mark.parametrize("pipe", [False, True], ids=["with Content-Length", "chunked"])
@pytest.mark.parametrize("reads_all", [True, False])
def test_a_200_needs_a_downloader_that_reads_the_last_bytes(
    cluster: Cluster, token: str, tmp_path: Path, pipe: bool, reads_all: bool, node: int
) -> None:
    """60 kB fit into the socket buffers. So when the downloader disconnects, the relay has handed over everything and
    TCP has acknowledged it. The uploader gets a 200 only if the downloader has also read everything."""
    source = tmp_path / "source"
    source.write_bytes(b"x" * 60_000)
    with Curl("-T", "-" if pipe else source, "-w", "%{http_code}", cluster.url(0, token, "x"), pipe=pipe) as upload:
        if pipe:
            upload.write_all(source.read_bytes())
        cluster.wait_state(token, "waiting")
        with socket.create_connection(("127.0.0.1", cluster[node].port)) as down:
            down.sendall(f"GET /{token}/x HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            wait_until(lambda: len(down.recv(90_000, socket.MSG_PEEK)) > 60_000, "all of it to be in our kernel")
            assert upload.process.poll() is None  # TCP has acknowledged the bytes; the uploader still has no response
            got = down.recv(30_000)
            while reads_all and (more := down.recv(90_000)):
                got += more
        assert (len(got) > 60_000) is reads_all
        assert upload.finish()[1].endswith(b"200" if reads_all else b"424" if pipe else b"502")
    assert_free(cluster, token, "x")


def test_a_slow_downloader_that_takes_everything_is_complete(cluster: Cluster, token: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x" * 3_000_000)
    with Curl("-T", source, cluster.url(0, token, "x")) as upload:
        done = curl("--limit-rate", "1M", "-o", tmp_path / "out", cluster.url(1, token, "x"))
        assert done.returncode == 0
        assert upload.finish() == (0, b"delivered 3000000 bytes\n")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.parametrize("size", [3_000, 100_000])
def test_an_uploader_that_leaves_while_waiting_frees_the_name(
    cluster: Cluster, token: str, tmp_path: Path, how: signal.Signals, size: int
) -> None:
    """The name is free at once, even if the node has stopped reading, provided that the kernel has received the
    whole body."""
    source = tmp_path / "source"
    source.write_bytes(b"x" * size)
    with Curl("-H", "Expect:", "-T", source, cluster.url(0, token, "x")) as upload:
        cluster.wait_state(token, "waiting")
        wait_until(lambda: has_sent(upload, source), "curl to have sent it all")
        upload.process.send_signal(how)
    wait_until(lambda: httpx.head(cluster.url(1, token, "x")).status_code == 404, "the name to be free", timeout=2)
    assert_free(cluster, token, "x")


def test_a_downloader_that_leaves_while_waiting_is_forgotten(cluster: Cluster, token: str) -> None:
    assert cluster.redis is not None
    key = f"{cluster.prefix}:token:{{{id_of(token)}}}"
    with Curl(cluster.url(1, token, "x") + "?wait=60"):
        wait_until(
            lambda: cluster.redis and cluster.redis.hget(key, "wanted:x") == cluster[1].id.encode(),
            "the wish to be known",
        )
    wait_until(
        lambda: cluster.redis and cluster.redis.hget(key, "wanted:x") is None, "the wish to be forgotten", timeout=5
    )
    assert_free(cluster, token, "x")


def test_of_two_uploads_at_the_same_instant_one_wins(cluster: Cluster) -> None:
    """This happens 200 times, on two nodes. The download begins once one of the two uploads has been refused."""
    barrier = threading.Barrier(2)

    def upload(client: httpx.Client, node: int, token: str) -> int:
        request = client.build_request("PUT", cluster.url(node, token, "x"), content=f"from {node}")
        barrier.wait(60)
        return client.send(request).status_code

    with ThreadPoolExecutor(2) as pool, httpx.Client(timeout=60) as first, httpx.Client(timeout=60) as second:
        for token in [cluster.token() for _ in range(200)]:
            uploads = [pool.submit(upload, first, 0, token), pool.submit(upload, second, 1, token)]
            loser = wait(uploads, timeout=30, return_when=FIRST_COMPLETED).done.pop()
            assert loser.result() == 409
            winner = uploads.index(loser) ^ 1
            assert httpx.get(cluster.url(2, token, "x")).text == f"from {winner}"
            assert uploads[winner].result() == 200


def test_of_two_downloads_at_the_same_instant_one_wins(cluster: Cluster) -> None:
    """This happens 200 times, on two nodes."""
    tokens = [cluster.token() for _ in range(200)]
    barrier = threading.Barrier(3)
    payload = b"x" * 100_000

    def upload() -> list[int]:
        statuses = []
        with httpx.Client(timeout=60) as client:
            for token in tokens:
                barrier.wait(60)
                statuses.append(client.put(cluster.url(0, token, "x"), content=payload).status_code)
        return statuses

    def download(node: int) -> list[tuple[int, int]]:
        answers = []
        with httpx.Client(timeout=60) as client:
            for token in tokens:
                barrier.wait(60)
                answer = client.get(cluster.url(node, token, "x"))
                answers.append((answer.status_code, len(answer.content)))
        return answers

    with ThreadPoolExecutor(3) as pool:
        uploads, first, second = pool.submit(upload), pool.submit(download, 1), pool.submit(download, 2)
        assert set(uploads.result()) == {200}
        for pair in zip(first.result(), second.result(), strict=True):
            winner, loser = sorted(pair)
            assert winner == (200, len(payload))
            assert loser[0] in (404, 409)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.parametrize("size", [3_000, 300_000, 50_000_000])
@pytest.mark.parametrize("expect", [True, False], ids=["with Expect", "without"])
def test_a_dead_uploader_does_not_keep_the_name(
    cluster: Cluster, token: str, tmp_path: Path, how: signal.Signals, size: int, expect: bool
) -> None:
    """However much of the body is stuck in kernel buffers, the name is free within 2 s after another upload asks for
    it."""
    source = tmp_path / "source"
    source.write_bytes(b"x" * size)
    options = () if expect else ("-H", "Expect:")
    with Curl(*options, "-T", source, cluster.url(0, token, "x")) as upload:
        cluster.wait_state(token, "waiting")
        # curl waits one second for the 100 Continue and then sends anyway, so the buffers fill up in both cases.
        wait_until(lambda: is_blocked(upload) or size < 1_000_000, "the buffers to be full")
        upload.process.send_signal(how)
    begun = time.monotonic()
    with Curl("-T", "-", "-w", "%{http_code}", cluster.url(1, token, "x"), pipe=True) as second:
        second.write(b"again")
        second.close()
        key = f"{cluster.prefix}:transfer:{{{id_of(token)}}}:x"
        wait_until(
            lambda: cluster.redis and cluster.redis.hget(key, "uploader") == cluster[1].id.encode(),
            "the name",
            timeout=10,
        )
        taken = time.monotonic() - begun
        assert curl(cluster.url(2, token, "x") + "?wait=10").stdout == b"again"
        assert second.finish()[1].endswith(b"200")
    print(f"free after {taken:.2f} s")


def test_a_living_uploader_keeps_the_name(cluster: Cluster, token: str, tmp_path: Path) -> None:
    """Repeated probes do the uploader no harm."""
    source = tmp_path / "source"
    source.write_bytes(os.urandom(20_000_000))
    with Curl("-H", "Expect:", "-T", source, cluster.url(0, token, "x")) as upload:
        cluster.wait_state(token, "waiting")
        wait_until(lambda: is_blocked(upload), "the buffers to be full")
        time.sleep(2)
        for _ in range(2):
            assert httpx.put(cluster.url(1, token, "x"), content=b"other", timeout=20).status_code == 409
        assert curl(cluster.url(2, token, "x")).stdout == source.read_bytes()
        assert upload.finish() == (0, b"delivered 20000000 bytes\n")


def is_blocked(upload: Curl) -> bool:
    """Return whether the uploader has begun to send and is now blocked."""
    before = chars_read(upload)
    time.sleep(0.2)
    after = chars_read(upload)
    return bool(before > 1_000_000 and after == before)


def has_sent(upload: Curl, source: Path) -> bool:
    """Return whether curl has read its whole file, judged by the position of its file descriptor."""
    return any(
        file.path == str(source) and file.position == source.stat().st_size
        for file in psutil.Process(upload.process.pid).open_files()
    )


@pytest.mark.parametrize("streams", [False, True], ids=["waiting", "streaming"])
def test_a_dead_uploader_behind_a_proxy_does_not_keep_the_name(cluster: Cluster, token: str, streams: bool) -> None:
    """The end of the connection is queued behind bytes that the proxy still holds, and a proxy must not be sent an
    interim response. So the node reads ahead in the body to find the end, even if there is a downloader that reads
    nothing. The body of 50 MB is larger than the buffers of this machine and of the node together."""
    with socket.create_connection(("127.0.0.1", cluster[0].port)) as proxy, contextlib.ExitStack() as stack:
        header = f"PUT /{token}/x HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 1.2.3.4\r\nContent-Length: 50000000\r\n\r\n"
        proxy.sendall(header.encode())
        cluster.wait_state(token, "waiting")
        if streams:
            download = stack.enter_context(socket.socket())
            download.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            download.connect(("127.0.0.1", cluster[2].port))
            download.sendall(f"GET /{token}/x HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            cluster.wait_state(token, "streaming")
        proxy.settimeout(0.5)
        sent = 0
        with contextlib.suppress(TimeoutError):
            while sent < 50_000_000:
                sent += proxy.send(bytes(64 * 1024))
        assert 1_000_000 < sent < 24_000_000
        proxy.close()
        with Curl("-T", "-", "-w", "%{http_code}", cluster.url(1, token, "x"), pipe=True) as second:
            second.write_all(b"again")
            key = f"{cluster.prefix}:transfer:{{{id_of(token)}}}:x"
            wait_until(
                lambda: cluster.redis and cluster.redis.hget(key, "uploader") == cluster[1].id.encode(), "the name", 10
            )
            assert curl(cluster.url(2, token, "x") + "?wait=10").stdout == b"again"
            assert second.finish()[1].endswith(b"200")


def test_a_living_uploader_behind_a_proxy_keeps_the_name(cluster: Cluster, token: str) -> None:
    """The bytes that the node reads ahead to find out whether the uploader lives are not lost."""
    body = os.urandom(20_000_000)
    with socket.create_connection(("127.0.0.1", cluster[0].port)) as proxy, ThreadPoolExecutor(1) as pool:
        header = f"PUT /{token}/x HTTP/1.1\r\nHost: x\r\nVia: 1.1 p\r\nContent-Length: {len(body)}\r\n\r\n"
        sending = pool.submit(proxy.sendall, header.encode() + body)
        cluster.wait_state(token, "waiting")
        for _ in range(2):
            assert httpx.put(cluster.url(1, token, "x"), content=b"other", timeout=20).status_code == 409
        assert curl(cluster.url(2, token, "x")).stdout == body
        sending.result(timeout=20)
        assert proxy.recv(65536).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("pipe", [False, True], ids=["with Content-Length", "chunked"])
@pytest.mark.parametrize("size", [0, 1, 60_000])
def test_a_reset_by_a_proxy_that_has_acknowledged_everything_is_a_200(
    cluster: Cluster, token: str, tmp_path: Path, pipe: bool, size: int
) -> None:
    """HAProxy resets most connections after it has received the whole response. If a client itself resets the
    connection, it died with bytes unread, and the uploader gets no 200 (see above)."""
    source = tmp_path / "source"
    source.write_bytes(b"x" * size)
    with Curl("-T", "-" if pipe else source, "-w", "%{http_code}", cluster.url(0, token, "x"), pipe=pipe) as upload:
        if pipe:
            upload.write_all(source.read_bytes())
        cluster.wait_state(token, "waiting")
        with socket.create_connection(("127.0.0.1", cluster[1].port)) as proxy:
            proxy.sendall(f"GET /{token}/x HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n".encode())
            got = b""
            while not (got.endswith(b"\r\n0\r\n\r\n") if pipe else len(got.partition(b"\r\n\r\n")[2]) == size and got):
                got += proxy.recv(90_000)
            proxy.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        assert upload.finish()[1].endswith(b"200")
