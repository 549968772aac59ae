"""What a GET with a Range gets from an upload that waits, and what that upload is told."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import httpx
import pytest

from relay.server.conditions import LARGEST
from tests.support.cluster import Cluster, Curl

DATA = os.urandom(1000)
CHUNKED = ("-H", "Transfer-Encoding: chunked")


class Upload(NamedTuple):
    """An upload of DATA that waits, and the URL at which another node serves it."""

    curl: Curl
    url: str

    def get(self, *ranges: str, **headers: str) -> httpx.Response:
        lines = [("Range", value) for value in ranges] + [(name.replace("_", "-"), headers[name]) for name in headers]
        return httpx.get(self.url, headers=lines, timeout=30)

    def check_delivered(self) -> None:
        assert self.curl.finish() == (0, b"delivered 1000 bytes\n")

    def check_waiting(self) -> None:
        """Check that it was not touched, by downloading it."""
        response = self.get()
        assert (response.status_code, response.content) == (200, DATA)
        self.check_delivered()


@contextmanager
def uploading(cluster: Cluster, *options: str) -> Iterator[Upload]:
    token, name = cluster.token(), secrets.token_hex(4)
    # A pipe has no length, unless curl is told one.
    length = () if options else ("-H", f"Content-Length: {len(DATA)}", "-H", "Transfer-Encoding:")
    with Curl(*options, *length, "-T", "-", cluster.url(0, token, name), pipe=True) as curl:
        curl.write_all(DATA)
        cluster.wait_state(token, "waiting")
        yield Upload(curl, cluster.url(1, token, name))


@pytest.mark.parametrize(
    "ranges",
    [
        ["bytes=-"],
        ["bytes=--5"],
        ["bytes=-5-"],
        ["bytes=abc-"],
        ["bytes=0x10-"],
        ["bytes=1e2-"],
        ["bytes=5.0-"],
        ["bytes=+5-"],
        ["bytes=9-5"],
        ["bytes=" + "9" * 101 + "-"],
        ["bytes=5-,7-"],
        ["bytes=5-", "bytes=7-"],
        ["octets=5-"],
        ["5-"],
        ["bytes 5-"],
        ["bytes=0-"],
        ["bytes=-1000"],
        ["bytes=-99999999999999999999"],
        ["bytes=0-999"],
        ["bytes=0-5000"],
    ],
)
def test_everything_is_sent(cluster: Cluster, ranges: list[str]) -> None:
    """The range is malformed, which section 14.2 of RFC 9110 lets a server ignore, or it asks for everything."""
    with uploading(cluster) as upload:
        response = upload.get(*ranges)
        assert (response.status_code, response.content) == (200, DATA)
        assert "content-range" not in response.headers
        upload.check_delivered()


@pytest.mark.parametrize("asked", ["bytes=300-", "bytes=300-999", "bytes=300-5000", "Bytes=300-", "bytes= 300- ,"])
def test_the_rest_is_sent(cluster: Cluster, asked: str) -> None:
    with uploading(cluster) as upload:
        response = upload.get(asked)
        assert (response.status_code, response.content) == (206, DATA[300:])
        assert response.headers["content-range"] == "bytes 300-999/1000"
        upload.check_delivered()


def test_the_rest_of_an_unknown_length_is_sent(cluster: Cluster) -> None:
    with uploading(cluster, *CHUNKED) as upload:
        response = upload.get("bytes=300-")
        assert (response.status_code, response.content) == (206, DATA[300:])
        assert response.headers["content-range"] == f"bytes 300-{LARGEST}/*"
        upload.check_delivered()


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        ("bytes=0-0", 416),
        ("bytes=0-499", 416),
        ("bytes=300-998", 416),
        ("bytes=-999", 416),
        ("bytes=-0", 416),
        ("bytes=1001-", 409),
        (f"bytes={LARGEST + 1}-", 409),
        ("bytes=" + "9" * 100 + "-", 409),
    ],
)
def test_a_range_that_is_refused_takes_nothing(cluster: Cluster, asked: str, status: int) -> None:
    with uploading(cluster) as upload:
        response = upload.get(asked)
        assert response.status_code == status
        assert response.text.count("\n") == 1
        upload.check_waiting()


@pytest.mark.parametrize(
    ("asked", "status"), [("bytes=0-0", 416), ("bytes=300-999", 416), ("bytes=-5", 416), (f"bytes={LARGEST + 1}-", 409)]
)
def test_a_range_of_an_unknown_length_that_is_refused_takes_nothing(cluster: Cluster, asked: str, status: int) -> None:
    with uploading(cluster, *CHUNKED) as upload:
        assert upload.get(asked).status_code == status
        upload.check_waiting()


def test_a_client_that_has_everything_completes_the_upload(cluster: Cluster) -> None:
    with uploading(cluster) as upload:
        response = upload.get("bytes=1000-")
        assert (response.status_code, response.content) == (416, b"")
        assert response.headers["content-range"] == "bytes */1000"
        upload.check_delivered()


def test_an_upload_that_turns_out_to_be_shorter_is_told(cluster: Cluster) -> None:
    """Of an unknown length, it cannot be known before that the downloader has another file."""
    with uploading(cluster, *CHUNKED) as upload:
        assert upload.get("bytes=1001-").status_code == 404
        assert upload.curl.finish()[1].startswith(b"The downloader left after")


def test_if_range(cluster: Cluster) -> None:
    """Only the ETag of this very upload makes the range count: section 13.1.5 of RFC 9110."""
    with uploading(cluster) as upload:
        etag = httpx.head(upload.url).headers["etag"]
        assert upload.get("bytes=300-", if_range=etag).content == DATA[300:]
        upload.check_delivered()
    for other in (etag, f"W/{etag}", etag.strip('"'), '"', "Fri, 27 Nov 2026 22:00:00 GMT"):
        with uploading(cluster) as upload:
            response = upload.get("bytes=300-", if_range=other)
            assert (response.status_code, response.content) == (200, DATA)
            upload.check_delivered()


def test_a_weak_etag_does_not_match(cluster: Cluster) -> None:
    with uploading(cluster) as upload:
        response = upload.get("bytes=300-", if_range="W/" + httpx.head(upload.url).headers["etag"])
        assert (response.status_code, response.content) == (200, DATA)


def test_a_head_ignores_the_range_and_takes_nothing(cluster: Cluster) -> None:
    """Section 14.2 of RFC 9110 defines Range for GET alone."""
    with uploading(cluster) as upload:
        for asked in ("bytes=300-", "bytes=0-0", "bytes=2000-"):
            response = httpx.head(upload.url, headers={"Range": asked})
            assert (response.status_code, response.headers["content-length"]) == (200, "1000")
            assert response.headers["accept-ranges"] == "bytes"
            assert "content-range" not in response.headers
        upload.check_waiting()
