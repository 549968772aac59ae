"""The SHA-256 that an uploader gives in `Repr-Digest`, and how its downloader learns of it: before, while and after."""

import hashlib
from collections.abc import Iterator

import httpx
import pytest

from relay.digests import digest_header
from tests.support.cluster import Cluster, Curl, alone, curl, over_redis
from tests.support.resumable import PARTIAL
from tests.support.wait import wait_until

DATA = b"hello"
DIGEST = digest_header(hashlib.sha256(DATA).hexdigest())
VALUE = DIGEST["repr-digest"]


@pytest.fixture(scope="module", params=["embedded", "cluster"])
def shared_cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    server = request.getfixturevalue("redis_server") if request.param == "cluster" else None
    with over_redis(server, "ab") if server else alone() as cluster:
        yield cluster


@pytest.fixture
def cluster(shared_cluster: Cluster) -> Iterator[Cluster]:
    yield shared_cluster
    wait_until(lambda: not shared_cluster.left_over(), "no key to be left over", timeout=30)


@pytest.fixture
def token(cluster: Cluster) -> str:
    return cluster.token()


def create(cluster: Cluster, token: str, **headers: str) -> str:
    """Make an empty upload of five bytes at the first node, and return its address."""
    fields = {"Upload-Complete": "?0", "Upload-Length": "5"} | headers
    answer = httpx.post(cluster.url(0, token, "x"), headers=fields)
    assert answer.status_code == httpx.codes.CREATED, answer.text
    return cluster[0].url + answer.headers["location"]


def part(offset: int, *, is_last: bool = True) -> dict[str, str]:
    return {
        "Content-Type": PARTIAL,
        "Upload-Offset": str(offset),
        "Upload-Complete": "?1" if is_last else "?0",
    }


def ask(cluster: Cluster, token: str, tag: str) -> httpx.Response:
    """Ask for the digest of an upload, as a client does that has just received it."""
    return httpx.head(cluster.url(1, token, "x"), headers={"If-Match": tag})


def test_a_plain_upload_passes_it_on_in_every_header(cluster: Cluster, token: str) -> None:
    url = cluster.url(1, token, "x")
    with Curl("-T", "-", "-H", f"Repr-Digest: {VALUE}", cluster.url(0, token, "x"), pipe=True) as upload:
        upload.write_all(DATA)
        cluster.wait_state(token, "waiting")
        assert httpx.head(url).headers["repr-digest"] == VALUE
        link = httpx.post(f"{url}/link").text.strip()
        assert httpx.head(cluster.url(1, link, "x")).headers["repr-digest"] == VALUE
        download = curl("-D", "-", "-r", "2-", url)
        assert b" 206 " in download.stdout
        assert f"repr-digest: {VALUE}".encode() in download.stdout.lower().replace(
            VALUE.lower().encode(), VALUE.encode()
        )
        assert upload.finish()[0] == 0


def test_without_it_there_is_none(cluster: Cluster, token: str) -> None:
    with Curl("-T", "-", cluster.url(0, token, "x"), pipe=True) as upload:
        upload.write_all(DATA)
        answer = httpx.get(cluster.url(1, token, "x"))
        assert "repr-digest" not in answer.headers
        assert upload.finish()[0] == 0
    assert "repr-digest" not in ask(cluster, token, answer.headers["etag"]).headers


@pytest.mark.parametrize("method", ["PUT", "POST"])
def test_a_malformed_one_is_refused_and_nothing_is_claimed(cluster: Cluster, token: str, method: str) -> None:
    for more in ({}, {"Upload-Complete": "?0"}, {"Upload-Complete": "?1"}):
        answer = httpx.request(
            method, cluster.url(0, token, "x"), content=DATA, headers={"Repr-Digest": "sha-256=:AAAA:"} | more
        )
        assert (answer.status_code, answer.text.count("\n")) == (400, 1)
        assert "Repr-Digest" in answer.text
    assert httpx.head(cluster.url(0, token, "x")).status_code == httpx.codes.NOT_FOUND


def test_it_may_come_while_the_bytes_do_and_be_asked_for_after_the_end(cluster: Cluster, token: str) -> None:
    """The request that brings the bytes goes on. So do those of another upload of the name, afterwards."""
    address = create(cluster, token)
    upload = Curl("-T", "-", "-X", "PATCH", *headers(part(0)), address, pipe=True)
    with upload, Curl("-D", "-", cluster.url(1, token, "x")) as download:
        upload.write(DATA[:4])
        cluster.wait_state(token, "streaming")
        answer = httpx.post(address, headers=DIGEST)
        assert (answer.status_code, answer.content) == (204, b"")
        upload.write_all(DATA[4:])
        assert upload.finish()[0] == 0
        head = download.finish()[1].decode()
    assert head.endswith(DATA.decode())
    assert "repr-digest" not in head, "it came too late for the headers"
    tag = head.partition("etag: ")[2].partition("\r\n")[0]
    found = ask(cluster, token, tag)
    assert (found.status_code, found.headers["repr-digest"]) == (httpx.codes.NOT_FOUND, VALUE)
    assert "repr-digest" not in ask(cluster, token, '"' + "0" * 16 + '"').headers
    assert "repr-digest" not in ask(cluster, token, f'{tag}, "x"').headers
    assert "repr-digest" not in ask(cluster, cluster.token(), tag).headers
    assert ask(cluster, token[:8] + "A" * 22, tag).status_code == httpx.codes.UNAUTHORIZED
    assert httpx.head(cluster.url(1, token, "x")).status_code == httpx.codes.NOT_FOUND
    assert httpx.get(cluster.url(1, token, "x?wait=0"), headers={"If-Match": tag}).status_code == httpx.codes.NOT_FOUND
    another = create(cluster, token)
    assert ask(cluster, token, tag).headers["repr-digest"] == VALUE
    httpx.delete(another)
    late = httpx.post(address, headers=DIGEST)
    assert (late.status_code, "complete" in late.text) == (400, True)


def test_the_last_part_may_bring_it(cluster: Cluster, token: str) -> None:
    address = create(cluster, token)
    with Curl("-D", "-", cluster.url(1, token, "x")) as download:
        assert httpx.patch(address, content=DATA[:3], headers=part(0, is_last=False)).status_code == 204
        assert httpx.patch(address, content=DATA[3:], headers=part(3) | DIGEST).status_code == httpx.codes.OK
        tag = download.finish()[1].decode().partition("etag: ")[2].partition("\r\n")[0]
    assert ask(cluster, token, tag).headers["repr-digest"] == VALUE


def test_the_creation_may_bring_it(cluster: Cluster, token: str) -> None:
    address = create(cluster, token, **{"Repr-Digest": VALUE})
    assert httpx.head(cluster.url(1, token, "x")).headers["repr-digest"] == VALUE
    assert httpx.delete(address).status_code == 204


def test_a_cancelled_upload_has_none_and_takes_none(cluster: Cluster, token: str) -> None:
    address = create(cluster, token)
    assert httpx.post(address, headers={"Repr-Digest": "sha-512=:AAAA:"}).status_code == httpx.codes.BAD_REQUEST
    assert httpx.post(address).status_code == httpx.codes.BAD_REQUEST
    assert httpx.post(address[:-1] + "_", headers=DIGEST).status_code in (404, 400)
    assert httpx.post(address[:-22] + "A" * 22, headers=DIGEST).status_code == httpx.codes.NOT_FOUND
    assert "repr-digest" not in (before := httpx.head(cluster.url(1, token, "x"))).headers
    assert httpx.post(address, headers=DIGEST).status_code == 204
    httpx.delete(address)
    assert "repr-digest" not in ask(cluster, token, before.headers["etag"]).headers
    assert httpx.post(address, headers=DIGEST).status_code == httpx.codes.GONE


def headers(fields: dict[str, str]) -> list[str]:
    return [word for name, value in fields.items() for word in ("-H", f"{name}: {value}")]
