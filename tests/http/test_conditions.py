"""Conditional and partial requests (RFC 9110 sections 13 and 14): each status, and that a refusal takes nothing."""

import httpx
import pytest

from tests.http.test_requests import UNKNOWN, line_of, put
from tests.support.cluster import Cluster, Curl, curl

DATE = "Wed, 21 Oct 2015 07:28:00 GMT"


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        # Section 14.2: everything may be sent in answer to any Range. What reaches the end can be served.
        ("GET", {"range": "bytes=0-"}, 200),
        ("GET", {"range": "bytes=0-3"}, 200),
        ("GET", {"range": "bytes=0-100"}, 200),
        ("GET", {"range": "bytes=-4"}, 200),
        ("GET", {"range": "bytes=2-"}, 206),
        ("GET", {"range": "bytes=0-2"}, 416),
        ("GET", {"range": "bytes=-3"}, 416),
        ("GET", {"range": "items=2-"}, 200),
        ("GET", {"range": "bytes=3-2"}, 200),
        ("GET", {"range": "bytes=two"}, 200),
        ("GET", {"range": "bytes=0-1,3-"}, 200),
        # Section 14.2: Range is defined for GET alone.
        ("HEAD", {"range": "bytes=2-"}, 200),
        # Sections 13.1.5 and 13.2.2: a Range whose If-Range does not match is ignored.
        ("GET", {"range": "bytes=2-", "if-range": '"x"'}, 200),
        ("GET", {"range": "bytes=2-", "if-range": DATE}, 200),
        ("GET", {"if-range": '"x"'}, 200),
        # Section 13.1.1.
        ("GET", {"if-match": "*"}, 200),
        ("GET", {"if-match": '"x"'}, 412),
        ("HEAD", {"if-match": "*"}, 200),
        ("HEAD", {"if-match": '"x"'}, 412),
        ("DELETE", {"if-match": '"x"'}, 412),
        # Section 13.1.2.
        ("GET", {"if-none-match": "*"}, 304),
        ("GET", {"if-none-match": '"x"'}, 200),
        ("HEAD", {"if-none-match": "*"}, 304),
        ("HEAD", {"if-none-match": '"x"'}, 200),
        ("DELETE", {"if-none-match": "*"}, 412),
        # Sections 13.1.3 and 13.1.4: without a modification date they are ignored.
        ("GET", {"if-modified-since": DATE}, 200),
        ("GET", {"if-unmodified-since": DATE}, 200),
        # Section 13.2.1: without the condition it would be 409, so that counts.
        ("PUT", {"if-match": "*"}, 409),
        ("PUT", {"if-none-match": "*"}, 409),
    ],
)
def test_a_condition_or_range_while_an_upload_waits(
    cluster: Cluster, token: str, method: str, headers: dict[str, str], status: int
) -> None:
    upload = put(cluster, token, "x")
    content = b"other" if method == "PUT" else None
    answer = httpx.request(method, cluster.url(1, token, "x"), headers=headers, content=content)
    assert answer.status_code == status
    if status == 206:
        assert (answer.content, answer.headers["content-range"]) == (b"ta", "bytes 2-3/4")
    elif (method, status) == ("GET", 200):
        assert answer.content == b"data"
    else:
        if status >= 400 and method != "HEAD":
            line_of(answer)
        assert httpx.get(cluster.url(1, token, "x")).content == b"data"
    assert upload().status_code == 200


@pytest.mark.parametrize(
    ("method", "headers", "status", "content"),
    [
        ("GET", {}, 200, b"data"),
        ("HEAD", {}, 200, b""),
        ("GET", {"if-match": "ETAG"}, 200, b"data"),
        ("GET", {"if-match": '"x", ETAG'}, 200, b"data"),
        ("GET", {"if-none-match": "ETAG"}, 304, b""),
        ("GET", {"if-none-match": "W/ETAG"}, 304, b""),
        ("HEAD", {"if-none-match": "ETAG"}, 304, b""),
        ("DELETE", {"if-none-match": "ETAG"}, 412, None),
        ("GET", {"range": "bytes=1-", "if-range": "ETAG"}, 206, b"ata"),
        # Section 13.1.5: a weak ETag never matches.
        ("GET", {"range": "bytes=1-", "if-range": "W/ETAG"}, 200, b"data"),
        ("GET", {"range": "bytes=1-", "if-match": "ETAG"}, 206, b"ata"),
        ("GET", {"range": "bytes=1-", "if-match": '"x"'}, 412, None),
        ("GET", {"range": "bytes=4-"}, 416, b""),  # the client has everything
        ("GET", {"range": "bytes=5-"}, 409, None),  # it has another file
    ],
)
def test_the_etag_of_an_upload(
    cluster: Cluster, token: str, method: str, headers: dict[str, str], status: int, content: bytes | None
) -> None:
    upload = put(cluster, token, "x")
    etag = httpx.head(cluster.url(1, token, "x")).headers["etag"]
    sent = {name: value.replace("ETAG", etag) for name, value in headers.items()}
    answer = httpx.request(method, cluster.url(1, token, "x"), headers=sent)
    assert answer.status_code == status
    if status < 300:
        assert (answer.headers["etag"], answer.headers["accept-ranges"]) == (etag, "bytes")
        assert "last-modified" not in answer.headers
    if content is not None:
        assert answer.content == content
    if status == 416:
        assert answer.headers["content-range"] == "bytes */4"
    if method != "GET" or status not in (200, 206, 416):
        assert httpx.get(cluster.url(0, token, "x")).content == b"data"  # nothing was taken
    assert upload().text == "delivered 4 bytes\n"


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("GET", {"if-match": '"x"'}, 404),
        ("GET", {"if-none-match": "*"}, 404),
        ("HEAD", {"if-match": '"x"'}, 404),
        ("DELETE", {"if-none-match": "*"}, 404),
        # Section 13.1.1: If-Match does not hold if nothing is there to be replaced.
        ("PUT", {"if-match": "*"}, 412),
        ("PUT", {"if-match": '"x"'}, 412),
        # These hold, or are ignored; then the upload waits in vain.
        ("PUT", {"if-none-match": "*"}, 504),
        ("PUT", {"if-unmodified-since": DATE}, 504),
    ],
)
def test_a_condition_while_there_is_no_upload(
    cluster: Cluster, token: str, method: str, headers: dict[str, str], status: int
) -> None:
    content = b"x" if method == "PUT" else None
    url = cluster.url(0, token, "x") + ("?wait=0" if method == "GET" else "")
    assert httpx.request(method, url, headers=headers, content=content, timeout=60).status_code == status


@pytest.mark.parametrize("header", ["if-match", "if-none-match"])
@pytest.mark.parametrize("method", ["PUT", "GET", "HEAD", "DELETE"])
def test_an_unknown_token_is_401_whatever_the_condition(cluster: Cluster, method: str, header: str) -> None:
    """Section 13.2.1: conditions count only if the status would be 2xx without them."""
    content = b"x" if method == "PUT" else None
    answer = httpx.request(method, cluster.url(0, UNKNOWN, "x"), headers={header: "*"}, content=content)
    assert answer.status_code == 401


def test_a_token_is_not_revoked_if_the_condition_does_not_hold(cluster: Cluster, token: str) -> None:
    for header, value in (("if-match", '"x"'), ("if-none-match", "*")):
        answer = httpx.delete(cluster.url(0, token), headers={header: value})
        assert answer.status_code == 412
        assert httpx.delete(cluster.url(0, UNKNOWN), headers={header: value}).status_code == 401
    assert httpx.get(cluster.url(1, token)).status_code == 200
    assert httpx.delete(cluster.url(0, token), headers={"if-match": "*"}).status_code == 204


def test_a_condition_does_not_hide_that_another_download_was_first(cluster: Cluster, token: str) -> None:
    with Curl("-T", "-", cluster.url(0, token, "x"), pipe=True) as source:
        cluster.wait_state(token, "waiting")
        with httpx.stream("GET", cluster.url(1, token, "x")) as first:
            answer = httpx.get(cluster.url(0, token, "x"), headers={"if-none-match": "*"})
            assert answer.status_code == 409
            source.write(b"hello")
            source.close()
            assert first.read() == b"hello"
        assert source.finish() == (0, b"delivered 5 bytes\n")


def test_a_bounded_range_of_an_unknown_length_is_refused(cluster: Cluster, token: str) -> None:
    with Curl("-T", "-", cluster.url(0, token, "x"), pipe=True) as source:
        cluster.wait_state(token, "waiting")
        done = curl("-r", "0-100", "-w", "%{http_code}", cluster.url(1, token, "x"))
        assert done.stdout.endswith(b"416"), done
        source.close()
        assert curl("-r", "0-", cluster.url(1, token, "x")).returncode == 0
        assert source.finish() == (0, b"delivered 0 bytes\n")
