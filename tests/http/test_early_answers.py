"""An answer that comes before the end of an upload reaches clients that send all of it first and read then (RFC 9112
section 9.6): the server closes its own side only, and throws away what still comes, for a bounded time."""

import contextlib
import http.client
import shutil
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import run
from urllib.parse import urlsplit

import httpx
import pytest

from tests.support.cluster import Cluster, alone, curl
from tests.support.haproxy import HAProxy
from tests.support.raw import raw

MIB = 1024 * 1024
SIZE = 100 * MIB
#: Maximum seconds that a client may go on sending after its answer, and that it may be silent.
LONGEST, SILENCE = 30, 5


def by_http_client(url: str, file: Path) -> int:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=60)
    with contextlib.closing(connection), file.open("rb") as body:
        connection.request("PUT", parts.path, body, {"Content-Length": str(SIZE)})
        return connection.getresponse().status


def by_urllib(url: str, file: Path) -> int:
    with file.open("rb") as body:
        request = urllib.request.Request(url, body, {"Content-Length": str(SIZE)}, method="PUT")
        with pytest.raises(urllib.error.HTTPError) as raised:
            urllib.request.urlopen(request, timeout=60)
    raised.value.close()
    return raised.value.code


def by_httpx(url: str, file: Path) -> int:
    with file.open("rb") as body:
        return httpx.put(url, content=body, headers={"Content-Length": str(SIZE)}, timeout=60).status_code


def by_wget(url: str, file: Path) -> int:
    done = run(
        ["wget", "-S", "--tries=1", "--method=PUT", f"--body-file={file}", "-O", "/dev/null", url],
        capture_output=True,
        timeout=60,
        check=False,
    )
    return int(done.stderr.partition(b"HTTP/1.1 ")[2][:3] or 0)


def by_curl(url: str, file: Path) -> int:
    return int(curl("-T", str(file), "-H", "Expect:", "-o", "/dev/null", "-w", "%{http_code}", url).stdout)


def by_httpie(url: str, file: Path) -> int:
    with file.open("rb") as body:
        done = run(["http", "--print=h", "PUT", url], stdin=body, capture_output=True, timeout=60, check=False)
    return int(done.stdout.partition(b"HTTP/1.1 ")[2][:3] or 0)


def by_java(url: str, file: Path) -> int:
    program = Path(__file__).parents[1] / "support" / "Upload.java"
    done = run(["java", str(program), url, str(SIZE // MIB)], capture_output=True, timeout=60, check=False)
    assert not done.returncode, done.stderr
    return int(done.stdout)


CLIENTS: dict[str, Callable[[str, Path], int]] = {
    "http.client": by_http_client,
    "urllib": by_urllib,
    "httpx": by_httpx,
    "wget": by_wget,
    "curl": by_curl,
    "http": by_httpie,
    "java": by_java,
}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Start one node."""
    with alone(failure_rate="", rejoin_wait=0) as cluster:
        yield cluster


@pytest.fixture
def token(cluster: Cluster) -> str:
    return cluster.token()


@pytest.fixture(scope="module", params=["direct", "haproxy"])
def front(request: pytest.FixtureRequest, cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the URL of the node, or of HAProxy in front of it."""
    if request.param == "direct":
        yield cluster[0].url
        return
    proxy = HAProxy(cluster.nodes, tmp_path_factory.mktemp("haproxy"))
    yield proxy.url
    proxy.stop()


@pytest.fixture(params=CLIENTS)
def upload(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], int]:
    """Return a function that uploads 100 MiB to a URL with one of the clients, and returns the status it has seen."""
    if request.param in ("wget", "http", "java") and not shutil.which(request.param):
        pytest.skip(f"needs {request.param}")
    file = tmp_path / "file"
    with file.open("wb") as opened:
        opened.truncate(SIZE)
    return lambda url: CLIENTS[request.param](url, file)


def test_a_client_sees_409_although_it_sends_first(
    cluster: Cluster, front: str, token: str, upload: Callable[[str], int]
) -> None:
    head = f"PUT /{token}/x HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n"
    with raw(cluster[0].url, head.encode()):
        cluster.wait_state(token, "waiting")
        assert upload(f"{front}/{token}/x") == 409


def test_a_client_sees_502_although_it_sends_first(
    cluster: Cluster, front: str, token: str, upload: Callable[[str], int]
) -> None:
    """Its downloader leaves when it has 1 MB. No retry of the client finds another one."""

    def leave_in_the_middle() -> None:
        with raw(cluster[0].url, f"GET /{token}/x?wait=20 HTTP/1.1\r\nHost: x\r\n\r\n".encode()) as download:
            got = 0
            while got < 1_000_000:
                got += len(download.read())

    downloader = threading.Thread(target=leave_in_the_middle)
    downloader.start()
    assert upload(f"{front}/{token}/x") == 502
    downloader.join()
    assert httpx.get(cluster.url(0, token, "x") + "?wait=0").status_code == 404


REFUSED = f"PUT /{'A' * 30}/x HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999999\r\n\r\n".encode()


def test_a_client_that_sends_for_ever_is_cut_off(cluster: Cluster) -> None:
    """It gets its answer at once, and our side is closed. It is slow, so that only the time can end it."""
    with raw(cluster[0].url, REFUSED) as client:
        assert client.rest().startswith(b"HTTP/1.1 401 ")
        begun = time.monotonic()
        with contextlib.suppress(ConnectionError):
            while time.monotonic() - begun < LONGEST + 10:
                client.socket.sendall(bytes(1000))
                time.sleep(0.1)
        assert LONGEST - 2 < time.monotonic() - begun < LONGEST + 8


def test_a_client_that_is_silent_after_its_answer_is_closed(cluster: Cluster) -> None:
    with raw(cluster[0].url, REFUSED + bytes(1000)) as client:
        assert client.rest().startswith(b"HTTP/1.1 401 ")
        time.sleep(SILENCE - 1.5)
        assert is_read(client.socket)
        time.sleep(SILENCE + 2)
        assert not is_read(client.socket)


def is_read(connection: socket.socket) -> bool:
    """Return whether the server takes bytes. If it has closed, they draw a reset."""
    try:
        for _ in range(2):
            connection.sendall(bytes(1000))
            time.sleep(0.3)
    except ConnectionError:
        return False
    return True


def test_hundreds_that_go_on_sending_cost_bounded_memory_and_harm_nobody(cluster: Cluster, token: str) -> None:
    node, count = cluster[0], 300
    before = node.rss()
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(raw(node.url, REFUSED)) for _ in range(count)]
        for client in clients:
            assert client.rest().startswith(b"HTTP/1.1 401 ")
        stop = threading.Event()

        def send() -> None:
            while not stop.is_set():
                for client in clients:
                    client.socket.setblocking(False)
                    with contextlib.suppress(BlockingIOError, ConnectionError):
                        client.socket.send(bytes(64 * 1024))

        sender = threading.Thread(target=send)
        sender.start()
        try:
            for _ in range(20):
                # How long an answer takes says more about the machine than about the node.
                assert httpx.get(node.url + "/healthz", timeout=30).status_code == 200
                time.sleep(0.1)
            assert (node.rss() - before) / count < 64 * 1024
        finally:
            stop.set()
            sender.join()


def test_what_is_refused_keeps_nothing_of_its_transfer(cluster: Cluster, token: str) -> None:
    """The name is free while the client is still sending."""
    head = f"PUT /{token}/x HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n".encode()
    with raw(cluster[0].url, head + bytes(1_000_000)) as up:
        with raw(cluster[0].url, f"GET /{token}/x?wait=10 HTTP/1.1\r\nHost: x\r\n\r\n".encode()) as down:
            assert down.head()
        assert up.head().startswith(b"HTTP/1.1 502 ")
        up.send(bytes(1_000_000))
        with raw(cluster[0].url, head.replace(b"100000000", b"5") + b"hello"):
            assert httpx.get(cluster.url(0, token, "x") + "?wait=5").content == b"hello"
        up.send(bytes(1_000_000))
