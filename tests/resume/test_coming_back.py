"""An upload whose downloader has left waits for it to come back, and is told the truth if that does not come."""

import signal
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.resume.conftest import MIB
from tests.support.cluster import Cluster, Curl, curl, over_redis
from tests.support.redis import RedisServer
from tests.support.wait import wait_until

#: Maximum seconds after which a second download is refused.
SOON = 5
BEGINNING = b"the beginning"


def begin(cluster: Cluster, token: str, upload: Curl, *, node: int = 1) -> None:
    """Download the beginning of an upload from a pipe, leave, and wait until that has been noticed."""
    with Curl("-N", cluster.url(node, token, "x") + "?wait=20") as download:
        upload.write(BEGINNING)
        assert download.read(len(BEGINNING)) == BEGINNING
    cluster.wait_state(token, "waiting")


@pytest.fixture
def token(cluster: Cluster) -> str:
    return cluster.token()


@pytest.fixture
def upload(cluster: Cluster, token: str) -> Iterator[Curl]:
    """Yield an upload from a pipe, of which a downloader has taken the beginning and left."""
    with Curl("-w", "%{http_code}", "-T", "-", cluster.url(0, token, "x"), pipe=True) as upload:
        begin(cluster, token, upload)
        yield upload


def test_it_goes_on_once_the_downloader_is_back(cluster: Cluster, token: str, upload: Curl) -> None:
    with Curl("-r", f"{len(BEGINNING)}-", cluster.url(2, token, "x")) as download:
        upload.write_all(b" and the end")
        assert download.finish() == (0, b" and the end")
    assert upload.finish() == (0, b"delivered 25 bytes\n200")


def test_what_the_downloader_has_lost_is_sent_again(cluster: Cluster, token: str, upload: Curl) -> None:
    with Curl("-r", "4-", cluster.url(2, token, "x")) as download:
        upload.write_all(b" and the end")
        assert download.finish() == (0, b"beginning and the end")
    assert upload.finish() == (0, b"delivered 25 bytes\n200")


def test_the_file_has_one_etag(cluster: Cluster, token: str, upload: Curl) -> None:
    """A client that comes back with the ETag of its first response, or with that of an earlier upload."""
    etag = httpx.head(cluster.url(1, token, "x")).headers["etag"]
    upload.close()
    assert curl("-r", "4-", "-H", f"If-Range: {etag}", cluster.url(1, token, "x")).stdout == b"beginning"
    assert upload.finish() == (0, b"delivered 13 bytes\n200")
    with Curl("-T", "-", cluster.url(0, token, "x"), pipe=True) as later:
        later.write_all(b"something else")
        cluster.wait_state(token, "waiting")
        assert curl("-r", "4-", "-H", f"If-Range: {etag}", cluster.url(1, token, "x")).stdout == b"something else"


@pytest.mark.parametrize("asked", ["", "13-", "5-", "0-5", "9999-"])
def test_a_second_download_does_not_disturb_the_first(cluster: Cluster, token: str, asked: str) -> None:
    with (
        Curl("-T", "-", cluster.url(0, token, "x"), pipe=True) as upload,
        Curl("-N", cluster.url(1, token, "x") + "?wait=20") as first,
    ):
        upload.write(BEGINNING)
        assert first.read(len(BEGINNING)) == BEGINNING
        begun = time.monotonic()
        for node in range(3):
            headers = {"Range": f"bytes={asked}"} if asked else {}
            second = httpx.get(cluster.url(node, token, "x"), headers=headers)
            assert second.status_code == (416 if asked == "0-5" else 409)
        assert time.monotonic() - begun < 3 * SOON
        upload.write_all(b" and the end")
        assert first.finish() == (0, b" and the end")
        assert upload.finish() == (0, b"delivered 25 bytes\n")


@pytest.mark.xfail(reason="a slow client's kernel opens its window rarely, which looks like a client that is gone")
def test_a_slow_download_is_not_disturbed_either(cluster: Cluster, token: str) -> None:
    """It has always something that it has not taken yet."""
    data = bytes(12 * MIB)
    with (
        Curl("-T", "-", cluster.url(0, token, "x"), pipe=True) as upload,
        Curl(
            "-N", "--limit-rate", "3M", "-o", "/dev/null", "-w", "%{size_download}", cluster.url(1, token, "x")
        ) as first,
    ):
        upload.write_all(data)
        cluster.wait_state(token, "streaming")
        assert httpx.get(cluster.url(2, token, "x"), headers={"Range": "bytes=5-"}).status_code == 409
        assert httpx.get(cluster.url(1, token, "x")).status_code == 409
        assert first.finish() == (0, str(len(data)).encode())
        assert upload.finish() == (0, f"delivered {len(data)} bytes\n".encode())


def test_two_that_come_back_at_once_do_not_get_it_both(cluster: Cluster, token: str, upload: Curl) -> None:
    urls = [cluster.url(node, token, "x") for node in (1, 2)]
    with Curl("-f", "-r", "13-", urls[0]) as one, Curl("-f", "-r", "13-", urls[1]) as other:
        cluster.wait_state(token, "streaming")
        wait_until(
            lambda: (
                None not in (one.process.poll(), other.process.poll())
                or [one.process.poll(), other.process.poll()].count(None) == 1
            ),
            "one of them to be refused",
        )
        upload.write_all(b" and the end")
        ends = sorted([one.finish(), other.finish()])
    assert ends[0] == (0, b" and the end")
    assert ends[1][0] == 22
    assert upload.finish() == (0, b"delivered 25 bytes\n200")


@pytest.mark.parametrize(("address", "status"), [("/x", b"410"), ("", b"401")])
def test_it_can_be_cancelled_and_revoked(
    cluster: Cluster, token: str, upload: Curl, address: str, status: bytes
) -> None:
    assert httpx.delete(cluster.url(2, token) + address).status_code == 204
    said = upload.finish()[1]
    assert said.endswith(status)
    assert httpx.get(cluster.url(2, token, "x") + "?wait=0").status_code == (404 if address else 401)


def test_the_uploader_leaves_meanwhile(cluster: Cluster, token: str, upload: Curl) -> None:
    upload.process.kill()
    url = cluster.url(2, token, "x") + "?wait=0"
    wait_until(lambda: httpx.get(url, headers={"Range": "bytes=13-"}).status_code == 404, "the name to be free")
    with Curl("-T", "-", cluster.url(0, token, "x"), pipe=True) as again:
        again.write_all(BEGINNING + b" and the end")
        cluster.wait_state(token, "waiting")
        assert curl("-r", "13-", cluster.url(2, token, "x")).stdout == b" and the end"
        assert again.finish() == (0, b"delivered 25 bytes\n")


def test_a_downloader_that_does_not_come_back(redis_server: RedisServer) -> None:
    with over_redis(redis_server, "ab", rejoin_wait=1) as cluster:
        token = cluster.token()
        with Curl("-w", "%{http_code}", "-T", "-", cluster.url(0, token, "x"), pipe=True) as upload:
            begin(cluster, token, upload)
            said = b"The downloader left after 13 bytes, the file did not arrive: upload it again.\n424"
            assert upload.finish() == (0, said)
        length = "Content-Length: 20"
        with Curl(
            "-w",
            "%{http_code}",
            "-H",
            length,
            "-H",
            "Transfer-Encoding:",
            "-T",
            "-",
            cluster.url(0, token, "x"),
            pipe=True,
        ) as upload:
            begin(cluster, token, upload)
            assert upload.finish() == (0, said.replace(b"424", b"502"))
        assert httpx.get(cluster.url(1, token, "x") + "?wait=0").status_code == 404


def test_a_node_that_stops_hands_its_download_over(redis_server: RedisServer) -> None:
    """It is cut off when the time for that is over, and goes on through the other node."""
    with over_redis(redis_server, "ab", drain_delay=0.2, drain_wait=0.2, drain_timeout=2) as cluster:
        token, stopping = cluster.token(), cluster[1]
        with (
            Curl("-w", "%{http_code}", "-T", "-", cluster.url(0, token, "x"), pipe=True) as upload,
            Curl("-N", cluster.url(1, token, "x") + "?wait=20") as download,
        ):
            upload.write(BEGINNING)
            assert download.read(len(BEGINNING)) == BEGINNING
            stopping.process.send_signal(signal.SIGTERM)
            assert download.finish()[0] != 0
            with Curl("-N", "-r", "13-", cluster.url(0, token, "x")) as again:
                upload.write_all(b" and the end")
                assert again.finish() == (0, b" and the end")
            assert upload.finish() == (0, b"delivered 25 bytes\n200")
        assert stopping.process.wait(20) == 0
