"""Requests that offer an upgrade are served as if they had not (RFC 9110 section 7.8)."""

import os
import shutil
import socket
import subprocess
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.cluster import Cluster, curl
from tests.support.raw import Raw, raw

SETTINGS = "HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\n"
OFFER = f"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n{SETTINGS}"
OFFERS = [
    OFFER,
    "Connection: Upgrade\r\nUpgrade: websocket\r\n",
    "upgrade: h2c\r\nUpgrade: x\r\nConnection: upgrade\r\n",
]
BODY = b"hello, world"
CHUNKED = b"5\r\nhello\r\n7;x=y\r\n, world\r\n0\r\nTrailer: t\r\n\r\n"
#: The framing of a body, and its bytes.
FRAMED = [
    pytest.param("Content-Length: 12\r\n", BODY, id="length"),
    pytest.param("Transfer-Encoding: chunked\r\n", CHUNKED, id="chunked"),
]


def put(token: str, headers: str) -> bytes:
    return f"PUT /{token}/x HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode()


def until(client: Raw, text: bytes) -> bytes:
    """Return what comes, up to and with `text`; or everything, if the server closes before."""
    answer = b""
    while text not in answer and (piece := client.read()):
        answer += piece
    return answer


def assert_delivered(upload: Raw, downloading: Future[subprocess.CompletedProcess[bytes]]) -> None:
    assert until(upload, b"bytes\n").endswith(b"delivered 12 bytes\n")
    assert downloading.result(timeout=20).stdout == BODY


@pytest.mark.parametrize("offer", OFFERS, ids=["h2c", "websocket", "twice"])
@pytest.mark.parametrize(("framing", "body"), FRAMED)
def test_an_upload_that_offers_an_upgrade_is_an_upload(
    cluster: Cluster, token: str, offer: str, framing: str, body: bytes
) -> None:
    with raw(cluster[0].url, put(token, offer + framing) + body) as upload:
        assert curl(cluster.url(1, token, "x") + "?wait=10").stdout == BODY
        answer = until(upload, b"bytes\n")
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(b"delivered 12 bytes\n")


@pytest.mark.parametrize(("framing", "body"), FRAMED)
def test_it_may_come_byte_by_byte(cluster: Cluster, token: str, framing: str, body: bytes) -> None:
    with raw(cluster[0].url) as upload, ThreadPoolExecutor(1) as pool:
        upload.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        downloading = pool.submit(curl, cluster.url(1, token, "x") + "?wait=10")
        for byte in put(token, OFFER + framing) + body:
            upload.send(bytes([byte]))
        assert_delivered(upload, downloading)


@pytest.mark.parametrize(("framing", "body"), FRAMED)
def test_it_is_told_to_continue_when_there_is_a_downloader(
    cluster: Cluster, token: str, framing: str, body: bytes
) -> None:
    with raw(cluster[0].url, put(token, OFFER + "Expect: 100-continue\r\n" + framing)) as upload:
        cluster.wait_state(token, "waiting")
        with ThreadPoolExecutor(1) as pool:
            downloading = pool.submit(curl, cluster.url(1, token, "x") + "?wait=10")
            assert upload.head() == b"HTTP/1.1 100 Continue\r\n\r\n"
            upload.send(body)
            assert_delivered(upload, downloading)


@pytest.mark.parametrize(("framing", "body"), FRAMED)
def test_the_connection_lives_on_and_the_requests_behind_it_are_served(
    cluster: Cluster, token: str, framing: str, body: bytes
) -> None:
    """Those sent at once, one of which offers again, and one that is sent later."""
    show = f"GET /{token} HTTP/1.1\r\nHost: x\r\n"
    behind = f"{show}\r\n{show}{OFFER}\r\n".encode()
    with raw(cluster[0].url, put(token, OFFER + framing) + body + behind) as client:
        assert curl(cluster.url(1, token, "x") + "?wait=10").stdout == BODY
        answers = b""
        while answers.count(b"expires in") < 2 and (piece := client.read()):
            answers += piece
        assert answers.count(b"HTTP/1.1 200 ") == 3
        client.send(f"{show}Connection: close\r\n\r\n".encode())
        assert client.rest().startswith(b"HTTP/1.1 200 ")


def test_a_large_body_goes_straight_into_the_buffer_too(cluster: Cluster, token: str) -> None:
    body = os.urandom(3_000_000)
    with raw(cluster[0].url) as upload, ThreadPoolExecutor(1) as pool:
        sending = pool.submit(upload.send, put(token, f"{OFFER}Content-Length: {len(body)}\r\n") + body)
        assert curl(cluster.url(1, token, "x") + "?wait=10").stdout == body
        sending.result(timeout=20)
        assert until(upload, b"bytes\n").endswith(b"delivered 3000000 bytes\n")


def test_a_download_that_offers_an_upgrade_is_a_download(cluster: Cluster, token: str) -> None:
    get = f"GET /{token}/x?wait=10 HTTP/1.1\r\nHost: x\r\n{OFFER}\r\n".encode()
    with raw(cluster[0].url, put(token, "Content-Length: 12\r\n") + BODY), raw(cluster[1].url, get) as download:
        answer = download.rest()
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(BODY)


@pytest.mark.parametrize(
    "framing",
    [
        "Content-Length: 12\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: 12\r\nContent-Length: 13\r\n",
        "Content-Length: +12\r\n",
        "Transfer-Encoding: gzip\r\n",
        "Transfer-Encoding: chunked, gzip\r\n",
    ],
)
def test_an_offer_does_not_loosen_the_framing(cluster: Cluster, token: str, framing: str) -> None:
    """Each of these is refused without an offer."""
    for offer in ("", OFFER):
        with raw(cluster[0].url, put(token, offer + framing) + BODY) as client:
            assert client.rest().startswith(b"HTTP/1.1 400 "), offer


@pytest.mark.parametrize("headers", ["", "Content-Length: 12\r\n", OFFER])
@pytest.mark.parametrize("target", ["x:80", "/"])
def test_connect_is_refused(cluster: Cluster, headers: str, target: str) -> None:
    """This is no proxy. llhttp takes it for an upgrade."""
    request = f"CONNECT {target} HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode() + BODY
    with raw(cluster[0].url, request) as client:
        answer = client.rest()
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1 400 ") == 1


# -- Java's HttpClient, which offers HTTP/2 unless it is told not to ----------------------------------------

SOURCE = Path(__file__).parents[1] / "support" / "OffersHttp2.java"
needs_java = pytest.mark.skipif(shutil.which("java") is None, reason="there is no java on this machine")


def java(method: str, url: str, body: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(
        ["java", "-Xshare:auto", "-XX:TieredStopAtLevel=1", str(SOURCE), method, url],
        input=body,
        capture_output=True,
        timeout=60,
        check=True,
    )


@needs_java
def test_java_offers_an_upgrade() -> None:
    """Or the tests below would show nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as pool:
        server.settimeout(60)
        asking = pool.submit(java, "GET", f"http://127.0.0.1:{server.getsockname()[1]}/")
        client, _ = server.accept()
        with client:
            head = client.recv(65536)
            client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        asking.result(timeout=60)
    assert b"\r\nUpgrade: h2c\r\n" in head


@needs_java
@pytest.mark.parametrize("method", ["PUT", "PUT-CHUNKED"])
def test_java_uploads(cluster: Cluster, token: str, method: str) -> None:
    body = os.urandom(1_000_000)
    with ThreadPoolExecutor(1) as pool:
        downloading = pool.submit(curl, cluster.url(1, token, "x") + "?wait=50")
        done = java(method, cluster.url(0, token, "x"), body)
        assert downloading.result(timeout=60).stdout == body
    assert (done.stderr.strip(), done.stdout) == (b"200", b"delivered 1000000 bytes\n")


@needs_java
def test_java_downloads(cluster: Cluster, token: str, tmp_path: Path) -> None:
    body = os.urandom(1_000_000)
    file = tmp_path / "file"
    file.write_bytes(body)
    with ThreadPoolExecutor(1) as pool:
        # An upload waits 4 s here, and a busy machine may take longer to start Java.
        uploading = pool.submit(curl, "--retry", "20", "-T", str(file), cluster.url(0, token, "x"))
        done = java("GET", cluster.url(1, token, "x") + "?wait=50")
        assert uploading.result(timeout=60).stdout.endswith(b"delivered 1000000 bytes\n")
    assert (done.stderr.strip(), done.stdout) == (b"200", body)
