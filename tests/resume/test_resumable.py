"""Resumable uploads over HTTP: every request of the draft, on the embedded store and on two nodes over a real Redis."""

import json
import os
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.support.cluster import Cluster, Curl, alone, curl, over_redis
from tests.support.http1 import Answer, Request, pieces_of
from tests.support.raw import raw as connection
from tests.support.resumable import PARTIAL, PROBLEMS, Exchanged, Uploader, check_rules
from tests.support.wait import wait_until

#: Low limits keep the tests short.
LIMITS: dict[str, object] = {"upload_wait": 4, "download_wait": 20, "resume_wait": 20, "max_upload": 64 * 1024 * 1024}
DATA = os.urandom(3 * 1024 * 1024 + 17)
TOKEN = "A" * 30
MIB = 1024 * 1024


@pytest.fixture(scope="module", params=["embedded", "cluster"])
def shared_cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    server = request.getfixturevalue("redis_server") if request.param == "cluster" else None
    with over_redis(server, "ab", **LIMITS) if server else alone(**LIMITS) as cluster:
        yield cluster


@pytest.fixture
def cluster(shared_cluster: Cluster) -> Iterator[Cluster]:
    yield from shared_cluster.checked()


@pytest.fixture
def token(cluster: Cluster) -> str:
    return cluster.token()


@pytest.fixture
def address(cluster: Cluster, token: str) -> Iterator[str]:
    """Yield the address of an empty upload of the name `x`, at the first node. Cancel it afterwards."""
    location = create(cluster, token, {"Upload-Complete": "?0"}).headers["location"]
    yield cluster[0].url + location
    httpx.delete(cluster[0].url + location)


def create(cluster: Cluster, token: str, headers: Mapping[str, str], content: bytes | None = None) -> httpx.Response:
    return httpx.post(cluster.url(0, token, "x"), content=content, headers=headers, timeout=30)


def patch(address: str, content: bytes, offset: object, complete: str = "?1", **headers: str) -> httpx.Response:
    fields = {"Content-Type": PARTIAL, "Upload-Offset": str(offset), "Upload-Complete": complete} | headers
    return httpx.patch(address, content=content, headers=fields, timeout=30)


def uploader(cluster: Cluster, token: str, data: bytes = DATA, **options: object) -> Uploader:
    nodes = [node.url for node in cluster.nodes]
    return Uploader(nodes, f"/{token}/x", data, **options)  # type: ignore[arg-type]


# -- whole files -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [8, 9, None])
@pytest.mark.parametrize("is_careful", [False, True])
@pytest.mark.parametrize("piece", [None, 1024 * 1024])
@pytest.mark.parametrize("knows_length", [True, False])
def test_a_file_arrives_whole(
    cluster: Cluster, token: str, version: int | None, is_careful: bool, piece: int | None, knows_length: bool
) -> None:
    client = uploader(
        cluster, token, version=version, is_careful=is_careful, piece=piece, knows_length=knows_length
    ).start()
    download = curl(cluster.url(1, token, "x"))
    assert download.stdout == DATA
    answer = client.finish()
    assert (answer.status, answer.body) == (200, b"delivered %d bytes\n" % len(DATA))
    assert answer.headers["upload-offset"] == str(len(DATA))
    check_rules(client.exchanges, knows_length=knows_length)


def test_an_empty_file_arrives_whole(cluster: Cluster, token: str) -> None:
    for is_careful in (False, True):
        client = uploader(cluster, token, b"", is_careful=is_careful).start()
        assert curl("-f", cluster.url(1, token, "x")).stdout == b""
        assert client.finish().body == b"delivered 0 bytes\n"
        check_rules(client.exchanges)


def test_the_last_part_may_be_empty(cluster: Cluster, address: str, token: str) -> None:
    """Even if the length was known, so that the downloader had everything with the part before."""
    for headers in ({}, {"Upload-Length": "5"}):
        location = create(cluster, token, {"Upload-Complete": "?0"} | headers) if headers else None
        at = cluster[0].url + location.headers["location"] if location else address
        with Curl(cluster.url(1, token, "x")) as download:
            assert patch(at, b"hello", 0, "?0").headers["upload-complete"] == "?0"
            answer = patch(at, b"", 5)
            assert (answer.status_code, answer.text) == (200, "delivered 5 bytes\n")
            assert answer.headers["upload-complete"] == "?1"
            assert download.finish() == (0, b"hello")


def test_the_answer_may_be_json(cluster: Cluster, address: str, token: str) -> None:
    with Curl(cluster.url(1, token, "x")):
        answer = patch(address, b"hello", 0, Accept="application/json")
    assert answer.json() == {"outcome": "complete", "bytes": 5}


def test_what_the_creation_says_of_the_file_reaches_the_downloader(cluster: Cluster, token: str) -> None:
    headers = {"Upload-Complete": "?0", "Upload-Length": "2", "Content-Type": "image/png"}
    made = create(cluster, token, headers | {"Content-Disposition": 'inline; filename="a b.png"'})
    with Curl("-D", "-", cluster.url(1, token, "x")) as download:
        patch(cluster[0].url + made.headers["location"], b"hi", 0)
        _, output = download.finish()
    head = output.decode().lower()
    assert "content-type: image/png\r\n" in head
    assert "content-length: 2\r\n" in head
    assert 'filename="a b.png"' in head


# -- the upload's address ----------------------------------------------------------------------------------------


def test_head_tells_how_far_an_upload_is(cluster: Cluster, token: str) -> None:
    made = create(cluster, token, {"Upload-Complete": "?0", "Upload-Length": "7"})
    assert made.status_code == 201
    path = made.headers["location"]
    assert re.fullmatch(rf"/{token}/x/[0-9a-f]{{16}}[A-Za-z0-9]{{22}}", path)
    for node in cluster.nodes:
        asked = httpx.head(node.url + path)
        assert asked.status_code == 204
        told = {name: asked.headers[name] for name in ("upload-offset", "upload-complete", "upload-length")}
        assert told == {"upload-offset": "0", "upload-complete": "?0", "upload-length": "7"}
        assert asked.headers["upload-limit"] == f"max-size={64 * 1024 * 1024}"
        assert asked.headers["cache-control"] == "no-store"
    with Curl(cluster.url(1, token, "x")) as download:
        assert patch(cluster[0].url + path, b"abcd", 0, "?0").status_code == 204
        assert httpx.head(cluster[1].url + path).headers["upload-offset"] == "4"
        assert patch(cluster[1].url + path, b"efg", 4).status_code == 200
        assert download.finish() == (0, b"abcdefg")
    asked = httpx.head(cluster[1].url + path)
    told = {name: asked.headers[name] for name in ("upload-offset", "upload-complete", "upload-length")}
    assert told == {"upload-offset": "7", "upload-complete": "?1", "upload-length": "7"}
    answer = patch(cluster[0].url + path, b"more", 7)
    assert (answer.status_code, answer.json()["type"]) == (400, PROBLEMS + "completed-upload")


@pytest.mark.parametrize("asked", [0, 1])
def test_head_tells_how_far_a_request_under_way_has_come(cluster: Cluster, token: str, asked: int) -> None:
    """If both clients are on one node, too, whose bytes do not pass through Redis. That node knows it at once."""
    made = create(cluster, token, {"Upload-Complete": "?0", "Upload-Length": str(len(DATA))})
    address, elsewhere = (cluster[node].url + made.headers["location"] for node in (0, asked))
    fields = ("-H", f"Content-Type: {PARTIAL}", "-H", "Upload-Offset: 0", "-H", "Upload-Complete: ?1")

    def offset() -> int:
        return int(httpx.head(elsewhere).headers["upload-offset"])

    with (
        Curl("-N", cluster.url(0, token, "x")) as download,
        Curl("-X", "PATCH", "-T", "-", *fields, address, pipe=True) as upload,
    ):
        upload.write(DATA[: 2 * MIB])
        assert download.read(2 * MIB) == DATA[: 2 * MIB]
        if asked == 1:
            wait_until(lambda: offset() == 2 * MIB, "the offset")
        assert offset() == 2 * MIB
        assert httpx.head(cluster.url(1, token, "x")).headers["relay-delivered"] == str(2 * MIB)
        with ThreadPoolExecutor(1) as pool:
            rest = pool.submit(patch, address, DATA[2 * MIB :], 2 * MIB)
            assert download.finish() == (0, DATA[2 * MIB :])
            assert rest.result().status_code == httpx.codes.OK


def test_options_tell_that_uploads_can_be_resumed(cluster: Cluster, address: str, token: str) -> None:
    for url, methods in (
        (cluster.url(0, token, "x"), {"PUT", "POST", "GET", "HEAD", "DELETE", "OPTIONS"}),
        (address, {"HEAD", "PATCH", "POST", "DELETE", "OPTIONS"}),
    ):
        answer = httpx.options(url)
        assert answer.headers["accept-patch"] == PARTIAL
        assert answer.headers["upload-limit"] == f"max-size={64 * 1024 * 1024}"
        assert set(answer.headers["allow"].split(", ")) == methods
        assert httpx.request("REPORT", url).status_code == 405


def test_delete_cancels_an_upload(cluster: Cluster, address: str, token: str) -> None:
    with Curl(cluster.url(1, token, "x")) as download:
        patch(address, b"abcd", 0, "?0")
        assert httpx.delete(address).status_code == 204
        assert download.finish()[0] != 0
    assert httpx.delete(address).status_code == 404
    asked = httpx.head(address)
    assert asked.status_code == 410
    again = patch(address, b"abcd", 4)
    assert (again.status_code, "cancelled" in again.text) == (410, True)
    with Curl("-T", "-", cluster.url(0, token, "x"), pipe=True) as upload:  # the name is free
        upload.write_all(b"new")
        assert curl(cluster.url(1, token, "x")).stdout == b"new"


@pytest.mark.parametrize("method", ["HEAD", "PATCH", "DELETE"])
def test_other_addresses_are_unknown(cluster: Cluster, address: str, token: str, method: str) -> None:
    fields = {"Upload-Offset": "0", "Upload-Complete": "?1", "Content-Type": PARTIAL}
    *_, name, upload = address.split("/")
    other = cluster.token()
    root = cluster[0].url
    for path, status in (
        (f"{token}/{name}/{upload[:16]}{'a' * 22}", 404),  # the right id, but not the secret
        (f"{token}/{name}/{'0' * 16}{upload[16:]}", 404),
        (f"{token}/y/{upload}", 404),
        (f"{other}/{name}/{upload}", 404),
        (f"{TOKEN}/{name}/{upload}", 401),
        (f"{token}/{name}/{upload[:-1]}", 400),
        (f"{token}/{name}/{upload}/z", 405 if method == "PATCH" else 400),
    ):
        answer = httpx.request(method, f"{root}/{path}", headers=fields)
        assert answer.status_code == status, path
        assert upload[16:] not in answer.text
    assert httpx.head(address).status_code == 204  # it is still there


# -- what is refused ---------------------------------------------------------------------------------------------

NUMBERS = ["-1", "1.0", "1e3", "0x1", "", " ", "abc", "?1", '"1"', "9" * 16, "9" * 400, "1, 1", "+1", "1 2", "１"]
BOOLEANS = ["1", "true", "?2", "??1", "", "?1, ?1", "?1,?0", "? 1", '"?1"', "?1 ?1", "?1;=", "?1;A=1"]


@pytest.mark.parametrize("value", NUMBERS)
def test_malformed_offsets_and_lengths_are_refused(cluster: Cluster, address: str, token: str, value: str) -> None:
    latin = value.encode().decode("latin-1")
    for field in ("Upload-Offset", "Upload-Length"):
        fields = {"Content-Type": PARTIAL, "Upload-Offset": "0", "Upload-Complete": "?1"} | {field: latin}
        assert_refused(raw(address, "PATCH", fields), field)
    fields = {"Upload-Complete": "?0", "Upload-Length": latin}
    assert_refused(raw(cluster.url(0, token, "y"), "PUT", fields), "Upload-Length")


@pytest.mark.parametrize("value", BOOLEANS)
def test_a_malformed_completeness_is_refused(cluster: Cluster, address: str, token: str, value: str) -> None:
    fields = {"Content-Type": PARTIAL, "Upload-Offset": "0", "Upload-Complete": value}
    assert_refused(raw(address, "PATCH", fields), "Upload-Complete")
    assert_refused(raw(cluster.url(0, token, "y"), "PUT", {"Upload-Complete": value}), "Upload-Complete")


@pytest.mark.parametrize("field", ["Upload-Offset", "Upload-Complete"])
@pytest.mark.parametrize("count", [0, 2])
def test_a_part_has_each_field_once(cluster: Cluster, address: str, field: str, count: int) -> None:
    fields = {"Content-Type": PARTIAL, "Upload-Offset": "0", "Upload-Complete": "?1"}
    value = fields.pop(field)
    twice = {field: value, field.lower(): value} if count else {}
    assert_refused(raw(address, "PATCH", fields | twice), field)


@pytest.mark.parametrize("value", ["?1;a", "?1; a=1", " ?1 "])
def test_parameters_and_blanks_are_ignored(cluster: Cluster, address: str, token: str, value: str) -> None:
    with Curl(cluster.url(1, token, "x")) as download:
        status, _ = raw(address, "PATCH", {"Content-Type": PARTIAL, "Upload-Offset": "00", "Upload-Complete": value})
        assert status == 200
        assert download.finish() == (0, b"body")


@pytest.mark.parametrize("media_type", ["", "application/octet-stream", "application/partial-upload-x"])
def test_a_part_has_its_media_type(cluster: Cluster, address: str, media_type: str) -> None:
    answer = patch(address, b"x", 0, **{"Content-Type": media_type})
    assert answer.status_code == 415
    assert answer.headers["accept-patch"] == PARTIAL
    assert patch(address, b"x", 0, **{"Content-Encoding": "gzip"}).status_code == 415


def test_another_offset_is_refused_with_the_right_one(cluster: Cluster, address: str, token: str) -> None:
    with Curl(cluster.url(1, token, "x")) as download:
        patch(address, b"abcd", 0, "?0")
        for offset, body in ((0, b"abc"), (0, b""), (3, b""), (5, b"efg"), (5, b""), (60_000_000, b"efg")):
            answer = patch(address, body, offset, "?0")
            assert (answer.status_code, answer.headers["upload-offset"]) == (409, "4")
            assert answer.headers["upload-complete"] == "?0"
            problem = answer.json()
            assert problem["type"] == PROBLEMS + "mismatching-upload-offset"
            assert (problem["expected-offset"], problem["provided-offset"]) == (4, offset)
        assert patch(address, b"", 4, "?0").status_code == 204
        assert patch(address, b"cdef", 2, "?0").status_code == 204, "what the downloader has is thrown away"
        assert patch(address, b"fg", 5).status_code == 200
        assert download.finish() == (0, b"abcdefg")


@pytest.mark.parametrize(
    ("content", "headers"),
    [
        (b"abc", {"Upload-Complete": "?1", "Upload-Length": "4"}),
        (b"abc", {"Upload-Complete": "?1", "Upload-Length": "2"}),
        (b"abc", {"Upload-Complete": "?0", "Upload-Length": "2"}),
    ],
)
def test_lengths_that_contradict_each_other_are_refused(
    cluster: Cluster, token: str, content: bytes, headers: Mapping[str, str]
) -> None:
    for version in ({}, {"Upload-Draft-Interop-Version": "8"}):
        assert_inconsistent(create(cluster, token, {**headers, **version}, content))
    made = create(cluster, token, {"Upload-Complete": "?0", "Upload-Length": "7"})
    address = cluster[0].url + made.headers["location"]
    with Curl(cluster.url(1, token, "x")) as download:
        patch(address, b"abcd", 0, "?0")
        assert_inconsistent(patch(address, b"ef", 4))
        assert_inconsistent(patch(address, b"efgh", 4))
        assert_inconsistent(patch(address, b"efgh", 4, "?0"))
        assert_inconsistent(patch(address, b"efg", 4, **{"Upload-Length": "8"}))
        assert patch(address, b"efg", 4).status_code == 200
        assert download.finish() == (0, b"abcdefg")


def test_a_body_of_unknown_size_keeps_to_the_length(cluster: Cluster, token: str) -> None:
    """Too few bytes leave the upload as it is; too many end it."""
    made = create(cluster, token, {"Upload-Complete": "?0", "Upload-Length": "7"})
    address = cluster[0].url + made.headers["location"]
    fields = {"Content-Type": PARTIAL, "Upload-Complete": "?1"}
    with Curl(cluster.url(1, token, "x")) as download:
        for offset, body in ((0, b"abcd"), (4, b"ef"), (6, b"gh")):
            answer = httpx.patch(
                address, content=iter([body]), headers=fields | {"Upload-Offset": str(offset)}, timeout=30
            )
            assert_inconsistent(answer)
        status, output = download.finish()
        assert status != 0
        assert b"abcdef" in output
    assert httpx.head(address).status_code == 413


def test_an_upload_has_a_maximum(cluster: Cluster, token: str) -> None:
    most = 64 * 1024 * 1024
    for headers in ({"Upload-Complete": "?0", "Upload-Length": str(most + 1)},):
        answer = create(cluster, token, headers)
        assert (answer.status_code, answer.headers["upload-limit"]) == (413, f"max-size={most}")
    made = create(cluster, token, {"Upload-Complete": "?0"})
    address = cluster[0].url + made.headers["location"]
    answer = patch(address, b"x", 0, "?0", **{"Upload-Length": str(most + 1)})
    assert (answer.status_code, answer.headers["upload-limit"]) == (413, f"max-size={most}")
    httpx.delete(address)


# -- interop versions and 104 ------------------------------------------------------------------------------------


def test_a_client_of_another_version_uploads_as_ever(cluster: Cluster, token: str) -> None:
    for version in ("6", "7", "10", "abc"):
        headers = {"Upload-Draft-Interop-Version": version, "Upload-Complete": "?1"}
        with Curl(cluster.url(1, token, "x")) as download:
            status, answer = raw(cluster.url(0, token, "x"), "PUT", headers)
            assert (status, b"\r\nupload-" in answer.lower()) == (200, False)
            assert download.finish() == (0, b"body")
        answer_to_part = create(cluster, token, headers | {"Upload-Complete": "?0"}, b"part")
        assert answer_to_part.status_code == 400  # it would be taken for the whole file
        assert "versions 8 and 9" in answer_to_part.text


@pytest.mark.parametrize(
    ("headers", "is_announced"),
    [
        ({"Upload-Draft-Interop-Version": "8"}, True),
        ({"Upload-Draft-Interop-Version": "9"}, True),
        ({}, False),
        ({"Upload-Draft-Interop-Version": "8", "Via": "1.1 proxy"}, False),
        ({"Upload-Draft-Interop-Version": "8", "X-Forwarded-For": "192.0.2.1"}, False),
    ],
)
def test_104_is_for_those_who_can_take_it(
    cluster: Cluster, token: str, headers: Mapping[str, str], is_announced: bool
) -> None:
    fields = {"Upload-Complete": "?1", "Content-Length": "4", **headers}
    with Curl(cluster.url(1, token, "x")), Request(cluster.url(0, token, "x"), "PUT", fields) as request:
        request.send_body([b"body"])
        answer = request.answer()
    assert answer.status == 200
    assert answer.headers["upload-complete"] == "?1"
    assert [interim.status for interim in answer.interim] == [104] * is_announced
    for interim in answer.interim:
        assert interim.headers["upload-draft-interop-version"] == headers["Upload-Draft-Interop-Version"]
        assert interim.headers["upload-limit"] == f"max-size={64 * 1024 * 1024}"
        asked = httpx.head(cluster[0].url + interim.headers["location"])
        assert asked.headers["upload-complete"] == "?1"


def test_104_comes_beside_100(cluster: Cluster, token: str) -> None:
    fields = {
        "Upload-Complete": "?1",
        "Content-Length": "4",
        "Upload-Draft-Interop-Version": "8",
        "Expect": "100-continue",
    }
    with Curl(cluster.url(1, token, "x")) as download:
        waits: list[int] = []
        with Request(
            cluster.url(0, token, "x"), "PUT", fields, on_interim=lambda answer: waits.append(answer.status)
        ) as request:
            wait_until(lambda: request._has_answer() or 100 in waits, "100")
            request.send_body([b"body"])
            assert request.answer().status == 200
        assert waits == [104, 100]
        assert download.finish() == (0, b"body")


def test_http_1_0_gets_no_104(cluster: Cluster, token: str) -> None:
    with Curl(cluster.url(1, token, "x")):
        status, answer = raw(
            cluster.url(0, token, "x"),
            "PUT",
            {"Upload-Complete": "?1", "Upload-Draft-Interop-Version": "8"},
            version="1.0",
        )
    assert (status, b" 104 " in answer) == (200, False)


def test_a_client_that_was_told_no_address_does_not_keep_the_name(cluster: Cluster, token: str) -> None:
    """It cannot return, so its upload ends when it leaves."""
    for complete in ("?0", "?1"):
        fields = {"Upload-Complete": complete, "Content-Length": "1000000"}
        with (
            Request(cluster.url(0, token, "x"), "PUT", fields) as request,
            Curl(cluster.url(1, token, "x")) as download,
        ):
            request.send_body(pieces_of(bytes(200_000)))
            assert download.read(100_000) == bytes(100_000)
            request.socket.close()
            assert download.finish()[0] != 0


# -- secrets -----------------------------------------------------------------------------------------------------


def test_no_log_has_the_secret_of_an_upload(cluster: Cluster, address: str, token: str) -> None:
    with Curl(cluster.url(1, token, "x")) as download:
        httpx.head(address)
        patch(address, b"x", 7)
        patch(address, b"x", 0)
        download.finish()
    assert address.rsplit("/", 1)[1][16:] not in cluster.logs()
    assert address.rsplit("/", 1)[1][:16] in cluster.logs()


def test_the_client_follows_the_rules_by_itself() -> None:
    """The table of rules finds an answer that breaks them."""
    exchanged = Exchanged("HEAD", "/", {}, Answer(204, {"upload-offset": "1"}))
    with pytest.raises(AssertionError, match=r"5\.2\.2"):
        check_rules([exchanged])


# -- helpers -----------------------------------------------------------------------------------------------------


def raw(url: str, method: str, fields: Mapping[str, str], *, version: str = "1.1") -> tuple[int, bytes]:
    """Send a request with the body `body` as it stands. Return the status of the final answer, and all that came."""
    parts = httpx.URL(url)
    lines = [f"{method} {parts.path} HTTP/{version}", f"Host: {parts.netloc.decode()}", "Content-Length: 4"]
    lines += [f"{name}: {value}" for name, value in fields.items()] + ["Connection: close", "", ""]
    with connection(url, "\r\n".join(lines).encode("latin-1") + b"body") as client:
        answer = client.rest()
    final = re.findall(rb"HTTP/1\.1 ([2-5][0-9][0-9]) ", answer)
    return int(final[-1]), answer


def assert_refused(answer: tuple[int, bytes], field: str) -> None:
    status, text = answer
    assert status == 400, text
    line = text.split(b"\r\n\r\n", 1)[1].decode()
    assert line.startswith(f"{field} is needed here, once, and takes "), line
    assert line.count("\n") == 1


def assert_inconsistent(answer: httpx.Response) -> None:
    assert answer.status_code == 400, answer.text
    assert json.loads(answer.text)["type"] == PROBLEMS + "inconsistent-upload-length"
