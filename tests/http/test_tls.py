"""HTTPS by the node itself: the same truth about how a transfer ended as without."""

import contextlib
import http.client
import os
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.certificate import make_certificate
from tests.support.cluster import CUT_OFF, Cluster, Curl, curl, over_redis
from tests.support.redis import RedisServer
from tests.support.wait import wait_until

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One file that curl trusts and the nodes serve."""
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = make_certificate(folder)
    both = folder / "both.pem"
    both.write_text(Path(certificate).read_text() + Path(key).read_text())
    return str(both)


@pytest.fixture(scope="module")
def secure(redis_server: RedisServer, certificate: str) -> Iterator[Cluster]:
    with over_redis(redis_server, "ab", ssl_certfile=certificate, upload_wait=60, rejoin_wait=1) as cluster:
        yield cluster


@pytest.fixture
def token(secure: Cluster) -> str:
    return httpx.post(secure[0].url + "/token", verify=False).text.strip()


@pytest.fixture
def trust(certificate: str) -> tuple[str, str]:
    return ("--cacert", certificate)


def wait_waiting(cluster: Cluster, token: str, length: int | None) -> None:
    """Waits until an upload of this length waits, which tells it from others of the name."""

    def is_waiting() -> bool:
        answer = httpx.get(cluster.url(0, token), headers={"accept": "application/json"}, verify=False).json()
        return [(each["state"], each["length"]) for each in answer["transfers"]] == [("waiting", length)]

    wait_until(is_waiting, "the upload to wait")


@pytest.mark.parametrize("size", [0, 1, 20 * MIB])
@pytest.mark.parametrize("pipe", [False, True], ids=["with Content-Length", "chunked"])
def test_a_whole_transfer(
    secure: Cluster, token: str, trust: tuple[str, str], tmp_path: Path, size: int, pipe: bool
) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(os.urandom(size))
    with (
        Curl(*trust, "-T", "-" if pipe else source, secure.url(0, token, "x"), pipe=pipe) as upload,
        Curl(*trust, "-o", target, secure.url(1, token, "x") + "?wait=20") as download,
    ):
        if pipe:
            upload.write_all(source.read_bytes())
        assert upload.finish() == (0, f"delivered {size} bytes\n".encode())
        assert download.finish()[0] == 0
    assert (target.read_bytes() if size else b"") == source.read_bytes()


@pytest.mark.parametrize("pipe", [False, True], ids=["with Content-Length", "chunked"])
def test_a_killed_uploader_cuts_the_download(
    secure: Cluster, token: str, trust: tuple[str, str], tmp_path: Path, pipe: bool
) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    with source.open("wb") as file:
        file.truncate(1024 * MIB)
    with Curl(*trust, "-T", "-" if pipe else source, secure.url(0, token, "x"), pipe=pipe) as upload:
        if pipe:
            upload.write(b"x" * 2 * MIB)
        with Curl(*trust, "-o", target, secure.url(1, token, "x") + "?wait=20") as download:
            wait_until(lambda: target.exists() and target.stat().st_size >= MIB, "1 MiB")
            upload.process.kill()
            assert download.finish()[0] == CUT_OFF


def test_a_killed_downloader_is_told_to_the_uploader(
    secure: Cluster, token: str, trust: tuple[str, str], tmp_path: Path
) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    with source.open("wb") as file:
        file.truncate(1024 * MIB)
    with Curl(*trust, "-T", source, "-w", "%{http_code}", secure.url(0, token, "x")) as upload:
        with Curl(*trust, "--limit-rate", "20M", "-o", target, secure.url(1, token, "x") + "?wait=20") as download:
            wait_until(lambda: target.exists() and target.stat().st_size >= MIB, "1 MiB")
            download.process.kill()
        said = upload.finish()[1]
    assert said.endswith(b"502"), said


def peek(sock: socket.socket) -> bytes:
    """What is in the kernel, encrypted."""
    return socket.socket.recv(sock, 90_000, socket.MSG_PEEK)


@pytest.mark.parametrize("says_so", [True, False])
@pytest.mark.parametrize("reads_all", [True, False])
def test_the_last_bytes_count_too(
    secure: Cluster,
    token: str,
    trust: tuple[str, str],
    certificate: str,
    tmp_path: Path,
    reads_all: bool,
    says_so: bool,
) -> None:
    """60 kB fit into the sockets' buffers: only a downloader that has read everything makes it a 200,
    whether it ends TLS (`close_notify`) or only TCP."""
    source = tmp_path / "source"
    source.write_bytes(b"x" * 60_000)
    context = ssl.create_default_context(cafile=certificate)
    with Curl(*trust, "-T", source, "-w", "%{http_code}", secure.url(0, token, "x")) as upload:
        wait_waiting(secure, token, 60_000)
        plain = socket.create_connection(("127.0.0.1", secure[1].port), timeout=30)
        with context.wrap_socket(plain, server_hostname="127.0.0.1") as down:
            down.sendall(f"GET /{token}/x HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            wait_until(lambda: len(peek(down)) > 60_000, "all of it to be in our kernel")
            assert upload.process.poll() is None  # it is acknowledged, but not answered for
            got = down.recv(10)
            while reads_all and not got.endswith(b"x" * 60_000):
                got += down.recv(90_000)
            if says_so:
                with contextlib.suppress(OSError):  # it waits for the relay to say so too
                    down.settimeout(0.5)
                    down.unwrap()
        assert upload.finish()[1].endswith(b"200" if reads_all else b"502")


@pytest.mark.parametrize("size", [4, 200 * MIB])
def test_an_uploader_that_leaves_while_waiting_frees_the_name(
    secure: Cluster, token: str, trust: tuple[str, str], tmp_path: Path, size: int
) -> None:
    source = tmp_path / "source"
    with source.open("wb") as file:
        file.truncate(size)
    with Curl(*trust, "-T", source, "-H", "Expect:", secure.url(0, token, "x")) as upload:
        wait_waiting(secure, token, size)
        upload.process.kill()
        upload.process.wait()
    with Curl(*trust, "-T", "-", secure.url(1, token, "x"), pipe=True) as again:
        again.write_all(b"again")
        wait_waiting(secure, token, None)
        assert curl(*trust, secure.url(0, token, "x")).stdout == b"again"
        assert again.finish()[0] == 0


def test_who_speaks_http_to_it_is_closed(secure: Cluster) -> None:
    with socket.create_connection(("127.0.0.1", secure[0].port), timeout=30) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            while plain.recv(1000):
                pass
    assert httpx.get(secure[0].url + "/healthz", verify=False).status_code == 200


def test_an_early_answer_reaches_a_client_that_sends_first(secure: Cluster, token: str) -> None:
    """RFC 9112 section 9.6. Over TLS we cannot close our side alone, but we read on just as well."""
    unverified = ssl._create_unverified_context()
    client = http.client.HTTPSConnection("127.0.0.1", secure[0].port, timeout=60, context=unverified)
    with contextlib.closing(client):
        client.request("PUT", f"/{'A' * 30}/x", bytes(100 * MIB))
        assert client.getresponse().status == 401
