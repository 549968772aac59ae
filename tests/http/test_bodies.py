"""Bodies that go from the socket straight into an upload's chunks, and what is around them on the connection."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.cluster import CUT_OFF, Cluster, curl
from tests.support.raw import Raw, raw

#: More than one read of a socket brings.
SIZE = 3_000_000


def put(token: str, name: str, size: int, *headers: str) -> bytes:
    lines = [f"PUT /{token}/{name} HTTP/1.1", "Host: x", f"Content-Length: {size}", *headers, "", ""]
    return "\r\n".join(lines).encode()


def until(client: Raw, text: bytes) -> bytes:
    """What is answered, up to where it says this; less where it does not."""
    answer = b""
    while text not in answer and (piece := client.read()):
        answer += piece
    return answer


def test_one_upload_after_the_other_on_a_connection(cluster: Cluster, token: str) -> None:
    with raw(cluster[0].url) as client, ThreadPoolExecutor(1) as pool:
        for number in range(3):
            body = os.urandom(SIZE)
            sending = pool.submit(client.send, put(token, f"{number}", SIZE) + body)
            assert curl(cluster.url(1, token, f"{number}") + "?wait=10").stdout == body
            sending.result(timeout=20)
            assert until(client, b"bytes\n").endswith(b"delivered 3000000 bytes\n")


def test_what_comes_behind_a_body_is_the_next_request(cluster: Cluster, token: str) -> None:
    """Sent with its last bytes."""
    body = os.urandom(SIZE)
    with raw(cluster[0].url) as client, ThreadPoolExecutor(1) as pool:
        request = f"GET /{token} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
        sending = pool.submit(client.send, put(token, "x", SIZE) + body + request)
        assert curl(cluster.url(1, token, "x") + "?wait=10").stdout == body
        sending.result(timeout=20)
        answers = until(client, b"expires in")
        assert answers.count(b"HTTP/1.1 200") == 2
        assert b"delivered 3000000 bytes\n" in answers


def test_a_body_that_trickles_arrives_as_it_comes(cluster: Cluster, token: str) -> None:
    """Each piece is sent when the one before has arrived."""
    with raw(cluster[0].url, put(token, "x", 50 * 100)) as upload, raw(cluster[1].url) as download:
        download.send(f"GET /{token}/x?wait=10 HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        for number in range(50):
            piece = f"{number:100}".encode()
            upload.send(piece)
            assert until(download, piece).endswith(piece)
        assert until(upload, b"bytes\n").endswith(b"delivered 5000 bytes\n")


@pytest.mark.parametrize("sent", [1, 70_000, SIZE - 1])
def test_a_body_that_breaks_off_is_never_whole(cluster: Cluster, token: str, sent: int) -> None:
    with ThreadPoolExecutor(1) as pool:
        downloading = pool.submit(curl, cluster.url(1, token, "x") + "?wait=10")
        with raw(cluster[0].url, put(token, "x", SIZE)) as client:
            client.send(bytes(sent))
            cluster.wait_state(token, "streaming")
        done = downloading.result(timeout=30)
    assert done.returncode == CUT_OFF
    assert len(done.stdout) <= sent


def test_the_uploader_reads_why_it_was_ended_though_it_goes_on_sending(cluster: Cluster, token: str) -> None:
    """Its downloader leaves in the middle: the answer comes, and is not lost because much is still being sent."""
    with raw(cluster[0].url) as client:
        sender = threading.Thread(target=client.send, args=(put(token, "x", 30_000_000) + bytes(6_000_000),))
        sender.start()
        with raw(cluster[1].url, f"GET /{token}/x?wait=10 HTTP/1.1\r\nHost: x\r\n\r\n".encode()) as download:
            assert download.head().startswith(b"HTTP/1.1 200")
        assert client.head().startswith(b"HTTP/1.1 502 ")
        sender.join(timeout=20)
        assert not sender.is_alive()
