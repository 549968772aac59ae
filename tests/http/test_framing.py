"""Where a body ends: every row of RFC 9112 section 6, with the status that it gets and what a downloader sees of it.

Nothing that was sent may be left out of a file that is reported as delivered.
"""

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.support.cluster import CUT_OFF, Cluster, curl
from tests.support.raw import raw
from tests.support.wait import wait_until

LENGTH, CHUNKED = b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n"
CHUNKS = b"5\r\nhello\r\n0\r\n\r\n"


def te(value: bytes) -> bytes:
    return b"Transfer-Encoding: " + value + b"\r\n"


#: The version, the headers, what follows them, and the statuses of the responses.
REFUSED: list[tuple[bytes, bytes, bytes, list[bytes]]] = [
    # Section 6.1: a message of HTTP/1.0 with Transfer-Encoding has faulty framing.
    (b"1.0", CHUNKED, CHUNKS, [b"400"]),
    (b"1.0", CHUNKED + LENGTH, CHUNKS, [b"400"]),
    (b"1.0", te(b"gzip"), b"hello", [b"400"]),
    (b"1.0", te(b"identity"), b"hello", [b"400"]),
    # Section 6.1: a server that does not understand a transfer coding responds with 501.
    (b"1.1", te(b"gzip, chunked"), CHUNKS, [b"501"]),
    (b"1.1", te(b"x, gzip , Chunked"), CHUNKS, [b"501"]),
    (b"1.1", te(b"gzip") + CHUNKED, CHUNKS, [b"501"]),
    # Section 6.3, number 4: without chunked at the end, nobody knows where the body ends.
    (b"1.1", te(b"gzip"), b"hello", [b"400"]),
    (b"1.1", te(b"identity"), b"hello", [b"400"]),
    (b"1.1", te(b"chunked, gzip"), CHUNKS, [b"400"]),
    (b"1.1", te(b"chunked, identity"), CHUNKS, [b"400"]),
    (b"1.1", CHUNKED + te(b"gzip"), CHUNKS, [b"400"]),
    (b"1.1", te(b""), CHUNKS, [b"400"]),
    (b"1.1", te(b"chunked;x=y"), CHUNKS, [b"400"]),
    (b"1.1", te(b"xchunked"), CHUNKS, [b"400"]),
    (b"1.1", te(b"chunked,"), CHUNKS, [b"400"]),
    # Section 6.1: a sender must not apply chunked more than once.
    (b"1.1", te(b"chunked, chunked"), CHUNKS, [b"400"]),
    (b"1.1", CHUNKED + CHUNKED, CHUNKS, [b"400"]),
    # Section 6.3, number 3: both headers.
    (b"1.1", CHUNKED + LENGTH, CHUNKS, [b"400"]),
    (b"1.1", LENGTH + CHUNKED, CHUNKS, [b"400"]),
    (b"1.1", b"Content-Length: 0\r\n" + CHUNKED, CHUNKS, [b"400"]),
    # Section 6.3, number 5: a Content-Length that is no number, or several. Equal ones may be refused too.
    (b"1.1", LENGTH + b"Content-Length: 4\r\n", b"hello", [b"400"]),
    (b"1.1", LENGTH + LENGTH, b"hello", [b"400"]),
    (b"1.0", LENGTH + b"Content-Length: 4\r\n", b"hello", [b"400"]),
    (b"1.1", b"Content-Length: 5, 5\r\n", b"hello", [b"400"]),
    (b"1.1", b"Content-Length: 5, 4\r\n", b"hello", [b"400"]),
    (b"1.1", b"Content-Length: +5\r\n", b"hello", [b"400"]),
    (b"1.1", b"Content-Length: -5\r\n", b"hello", [b"400"]),
    (b"1.1", b"Content-Length: 0x5\r\n", b"hello", [b"400"]),
    (b"1.1", b"Content-Length: 5 5\r\n", b"hello", [b"400"]),
    (b"1.1", b"Content-Length: 5.0\r\n", b"hello", [b"400"]),
    (b"1.1", b"Content-Length:\r\n", b"hello", [b"400"]),
    (b"1.1", b"Content-Length: 99999999999999999999\r\n", b"hello", [b"400"]),
    (b"1.0", b"Content-Length: five\r\n", b"hello", [b"400"]),
    # Section 6.3, number 7: no header says that there is a body. It may be refused with 411.
    (b"1.0", b"", b"hello", [b"411"]),
    (b"1.0", b"", b"", [b"411"]),
    (b"1.1", b"", b"hello", [b"411"]),
    (b"1.1", b"", b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", [b"411"]),
    (b"1.1", b"", b"", [b"411"]),
    # Section 7.1: chunks that are none, before anything could be delivered.
    (b"1.1", CHUNKED, b"hello", [b"400"]),
    (b"1.1", CHUNKED, b"-5\r\nhello\r\n0\r\n\r\n", [b"400"]),
    (b"1.1", CHUNKED, b"0x5\r\nhello\r\n0\r\n\r\n", [b"400"]),
    (b"1.1", CHUNKED, b"10000000000000005\r\nhello\r\n0\r\n\r\n", [b"400"]),
    (b"1.1", CHUNKED, b"5\r\nhello0\r\n\r\n", [b"400"]),
    (b"1.1", CHUNKED, b"4\r\nhello\r\n0\r\n\r\n", [b"400"]),
    (b"1.1", CHUNKED, b"5\nhello\n0\n\n", [b"400"]),
]
#: Those that are served: the file, and the statuses of the responses.
SERVED: list[tuple[bytes, bytes, bytes, bytes, list[bytes]]] = [
    (b"1.1", LENGTH, b"hello", b"hello", [b"200"]),
    (b"1.0", LENGTH, b"hello", b"hello", [b"200"]),
    (b"1.1", b"Content-Length: 005\r\n", b"hello", b"hello", [b"200"]),
    (b"1.1", b"Content-Length: 0\r\n", b"", b"", [b"200"]),
    (b"1.0", b"Content-Length: 0\r\n", b"", b"", [b"200"]),
    (b"1.1", CHUNKED, CHUNKS, b"hello", [b"200"]),
    (b"1.1", te(b" CHUNKED "), CHUNKS, b"hello", [b"200"]),
    (b"1.1", CHUNKED, b"5;x=y\r\nhello\r\n0\r\nTrailer: x\r\n\r\n", b"hello", [b"200"]),
    (b"1.1", CHUNKED, b"0\r\n\r\n", b"", [b"200"]),
    # More than the header says is another request, and none.
    (b"1.1", LENGTH, b"hello world", b"hello", [b"200", b"400"]),
    (b"1.1", b"Content-Length: 0\r\n", b"hello", b"", [b"200", b"400"]),
    (b"1.1", CHUNKED, CHUNKS + b"hello", b"hello", [b"200", b"400"]),
    (b"1.0", LENGTH, b"hello world", b"hello", [b"200"]),  # HTTP/1.0 has one request on a connection
]


def put(token: str, version: bytes, headers: bytes, body: bytes) -> bytes:
    return b"PUT /%s/x HTTP/%s\r\nHost: x\r\n%s\r\n%s" % (token.encode(), version, headers, body)


def statuses(answers: bytes) -> list[bytes]:
    return re.findall(rb"HTTP/1\.1 (\d{3}) ", answers)


@pytest.mark.parametrize(("version", "headers", "body", "wanted"), REFUSED)
def test_a_body_whose_end_is_not_known_is_refused(
    cluster: Cluster, token: str, version: bytes, headers: bytes, body: bytes, wanted: list[bytes]
) -> None:
    with raw(cluster[0].url, put(token, version, headers, body)) as client:
        answers = client.rest()
    assert statuses(answers) == wanted
    assert b"connection: close\r\n" in answers
    assert httpx.get(cluster.url(1, token, "x") + "?wait=0").status_code == 404


@pytest.mark.parametrize(("version", "headers", "body", "file", "wanted"), SERVED)
def test_a_body_whose_end_is_known_is_delivered(
    cluster: Cluster, token: str, version: bytes, headers: bytes, body: bytes, file: bytes, wanted: list[bytes]
) -> None:
    with ThreadPoolExecutor(1) as pool, raw(cluster[0].url) as client:
        downloading = pool.submit(curl, cluster.url(1, token, "x") + "?wait=10")
        client.send(put(token, version, headers, body))
        done = downloading.result(timeout=30)
        assert (done.returncode, done.stdout) == (0, file)
        if wanted == [b"200"] and version == b"1.1":
            client.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            wanted = [b"200", b"200"]
        answers = client.rest()
    assert statuses(answers) == wanted
    assert f"delivered {len(file)} bytes\n".encode() in answers


@pytest.mark.parametrize(
    "rest", [b"3\r\nabc\r\n", b"3\r\nab", b"none\r\n", b"-1\r\n", b"3\r\nabcdef\r\n0\r\n\r\n", b"0\r\n"]
)
def test_a_body_that_turns_out_faulty_is_never_a_whole_file(
    cluster: Cluster, token: str, rest: bytes, tmp_path: Path
) -> None:
    """Section 8: the connection ends, or the chunks are faulty, after some of the body was passed on."""
    saved = tmp_path / "x"
    with ThreadPoolExecutor(1) as pool, raw(cluster[0].url) as client:
        downloading = pool.submit(curl, "-N", "-o", saved, cluster.url(1, token, "x") + "?wait=10")
        client.send(put(token, b"1.1", CHUNKED, b"5\r\nhello\r\n"))
        wait_until(lambda: saved.exists() and saved.read_bytes() == b"hello", "the download to have some of it")
        client.send(rest)
        client.socket.shutdown(1)
        done = downloading.result(timeout=30)
        assert done.returncode == CUT_OFF
        assert b"200" not in statuses(client.rest())
