"""Resumable uploads whose connections, nodes and answers are lost: whole, or truthfully told."""

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.cluster import Cluster, Curl, NodeProcess, assert_no_traceback, id_of, over_redis
from tests.support.haproxy import HAProxy
from tests.support.http1 import Answer, Request, pieces_of
from tests.support.redis import RedisServer
from tests.support.resumable import PARTIAL, Cut, Failed, Uploader, check_rules
from tests.support.wait import wait_until

MIB = 1024 * 1024
#: Low limits keep the tests short. They are high enough that a busy machine does not exceed them by itself.
LIMITS: dict[str, object] = {
    "heartbeat": 0.5,
    "node_death": 4,
    "download_wait": 20,
    "resume_wait": 60,
    "rewind": MIB,
    "drain_delay": 0,
    "drain_wait": 0,
    "interim_proxies": "127.0.0.1",
}
DATA = os.urandom(32 * MIB + 17)


@pytest.fixture(scope="module")
def two_nodes(redis_server: RedisServer) -> Iterator[Cluster]:
    with over_redis(redis_server, "ab", **LIMITS) as cluster:
        yield cluster


@pytest.fixture
def cluster(two_nodes: Cluster) -> Iterator[Cluster]:
    yield from two_nodes.checked()


@pytest.fixture
def token(cluster: Cluster) -> str:
    return cluster.token()


@pytest.fixture
def third(cluster: Cluster) -> Iterator[NodeProcess]:
    """Add a node for the test to kill or to stop."""
    node = NodeProcess("third", cluster[0].redis_url, {**LIMITS, "prefix": cluster.prefix})
    node.wait_ready()
    yield node
    if node.process.poll() is None:
        node.kill()
    assert_no_traceback(node.log())


def uploader(nodes: list[NodeProcess], token: str, data: bytes = DATA, **options: object) -> Uploader:
    return Uploader([node.url for node in nodes], f"/{token}/x", data, **options)  # type: ignore[arg-type]


def assert_whole(client: Uploader, download: Curl, data: bytes = DATA) -> None:
    """Check that the file has arrived, that its uploader knows, and that all requests have kept to the draft."""
    status, output = download.finish()
    assert (status, len(output), output[:200] if len(output) < 200 else output == data) == (0, len(data), True)
    client.finish()
    check_rules(client.exchanges)


class CutAt:
    """A hook that breaks the connection when it reaches each of the offsets, once each."""

    def __init__(self, *offsets: int) -> None:
        self._offsets = list(offsets)

    def __call__(self, offset: int) -> None:
        if self._offsets and offset >= self._offsets[0]:
            del self._offsets[0]
            raise Cut


# -- cut connections -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"is_careful": True}, {"is_careful": True, "piece": 8 * MIB}])
@pytest.mark.parametrize("down", [0, 1])
def test_a_connection_that_is_cut(cluster: Cluster, token: str, options: dict[str, object], down: int) -> None:
    """The uploader returns through the nodes in turn; the download stays open."""
    client = uploader(cluster.nodes, token, DATA, **options)
    client.sent = CutAt(3 * MIB, 11 * MIB, 11 * MIB, 29 * MIB)
    with Curl(cluster.url(down, token, "x") + "?wait=20") as download:
        client.start()
        assert_whole(client, download)
    assert len(client.exchanges) > 4


def test_a_connection_that_is_cut_before_anybody_downloads(cluster: Cluster, token: str) -> None:
    client = uploader(cluster.nodes, token, is_careful=True)
    client.sent = CutAt(1, 1, 1)
    client.start()
    wait_until(lambda: len(client.exchanges) > 4, "the uploader to return")
    with Curl(cluster.url(1, token, "x")) as download:
        assert_whole(client, download)


def test_an_answer_that_is_lost(cluster: Cluster, token: str) -> None:
    """The uploader asks, and is told that the file has arrived."""
    lost: list[Answer] = []

    def lose(answer: Answer) -> None:
        if not lost and answer.headers.get("upload-complete") == "?1":
            lost.append(answer)
            raise Cut

    client = uploader(cluster.nodes, token)
    client.got = lose
    with Curl(cluster.url(1, token, "x") + "?wait=20") as download:
        client.start()
        assert_whole(client, download)
    assert lost
    assert client.exchanges[-1].method == "HEAD"


def test_every_answer_to_a_piece_is_lost(cluster: Cluster, token: str) -> None:
    client = uploader(cluster.nodes, token, is_careful=True, piece=8 * MIB)
    seen: set[str] = set()

    def lose(answer: Answer) -> None:
        last = client.exchanges[-1]
        if last.method == "PATCH" and last.headers["upload-offset"] not in seen:
            seen.add(last.headers["upload-offset"])
            raise Cut

    client.got = lose
    with Curl(cluster.url(1, token, "x") + "?wait=20") as download:
        client.start()
        assert_whole(client, download)
    assert len(seen) == 5


# -- lost nodes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"is_careful": True, "piece": 8 * MIB}])
def test_the_uploaders_node_is_killed(
    cluster: Cluster, token: str, third: NodeProcess, options: dict[str, object]
) -> None:
    client = uploader([third, *cluster.nodes], token, DATA, **options)

    def kill(offset: int) -> None:
        if offset >= 10 * MIB and third.process.poll() is None:
            third.kill()

    client.sent = kill
    with Curl(cluster.url(1, token, "x") + "?wait=20") as download:
        client.start()
        assert_whole(client, download)
    assert third.process.poll() is not None


def test_the_uploaders_node_is_drained(cluster: Cluster, token: str, third: NodeProcess) -> None:
    """The node lets go of the upload at once, and the download stays open."""
    client = uploader([third, *cluster.nodes], token)
    begun, go_on = threading.Event(), threading.Event()

    def pause(offset: int) -> None:
        if offset >= 10 * MIB:
            begun.set()
            go_on.wait(30)

    client.sent = pause
    with Curl(cluster.url(1, token, "x") + "?wait=20") as download:
        client.start()
        assert begun.wait(30)
        third.process.send_signal(signal.SIGTERM)
        assert third.process.wait(20) == 0
        go_on.set()
        assert_whole(client, download)


def test_the_downloaders_node_is_killed(cluster: Cluster, token: str, third: NodeProcess, tmp_path: Path) -> None:
    """The downloader comes back, and so does the uploader if its node has not kept enough."""
    client = uploader(cluster.nodes, token)
    file = tmp_path / "file"

    def kill(offset: int) -> None:
        if offset >= 20 * MIB and third.process.poll() is None:
            third.kill()

    client.sent = kill
    client.start()
    loop = f"until curl -sSfC - -o {file} {third.url}/{token}/x?wait=5 || curl -sSfC - -o {file} " + (
        f"{cluster.url(1, token, 'x')}?wait=5; do sleep 0.2; done"
    )
    assert subprocess.run(["sh", "-c", loop], capture_output=True, timeout=120, check=False).returncode == 0
    client.finish()
    assert file.read_bytes() == DATA
    check_rules(client.exchanges)


# -- the downloader restarts -----------------------------------------------------------------------------------------


def test_a_downloader_that_starts_again(cluster: Cluster, token: str) -> None:
    """What it needs is gone, so the uploader is told to send it once more."""
    client = uploader(cluster.nodes, token, is_careful=True)
    with Curl(cluster.url(1, token, "x") + "?wait=20") as first:
        client.start()
        assert first.read(16 * MIB) == DATA[: 16 * MIB]
    with Curl(cluster.url(1, token, "x") + "?wait=20") as download:
        assert_whole(client, download)
    told = [each.answer for each in client.exchanges if each.answer and each.answer.status == 409]
    assert [answer.headers["upload-offset"] for answer in told] == ["0"]


def test_a_downloader_that_resumes(cluster: Cluster, token: str, tmp_path: Path) -> None:
    """Both sides are cut again and again."""
    client, file = uploader(cluster.nodes, token, is_careful=True), tmp_path / "file"
    client.sent = CutAt(5 * MIB, 12 * MIB, 21 * MIB)
    client.start()
    limits = iter((3, 9, 17, 26))
    for _ in range(100):
        with Curl("-fC", "-", "-o", file, cluster.url(1, token, "x") + "?wait=10") as download:
            most = next(limits, 1000) * MIB
            wait_until(
                lambda most=most, download=download: (
                    download.process.poll() is not None  # type: ignore[misc]
                    or (file.exists() and file.stat().st_size > most)
                ),
                "the download",
                timeout=60,
            )
            # It may have had everything when it was killed. Then there is nothing left that it could ask for.
            if download.process.poll() == 0 or file.stat().st_size == len(DATA):
                break
    client.finish()
    assert file.read_bytes() == DATA
    check_rules(client.exchanges, goes_back=True)


def test_a_download_that_waits_before_the_upload_is_created(cluster: Cluster, token: str) -> None:
    with Curl(cluster.url(1, token, "x") + "?wait=20") as download:
        wait_until(lambda: any("wanted" in str(each) for each in fields(cluster, token)), "the download to wait")
        made = httpx.put(cluster.url(0, token, "x"), headers={"Upload-Complete": "?0", "Upload-Length": str(len(DATA))})
        address = cluster[0].url + made.headers["location"]
        wait_until(lambda: b"joiner" in transfer(cluster), "the download to be attached")
        client = uploader(cluster.nodes, token)
        client.location = made.headers["location"]
        client.start()
        assert_whole(client, download)
        assert httpx.head(address).headers["upload-complete"] == "?1"


# -- two requests at once --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["PATCH", "HEAD"])
@pytest.mark.parametrize("up", [0, 1])
def test_a_new_request_takes_the_place_of_the_older_one(cluster: Cluster, token: str, method: str, up: int) -> None:
    """The older one is ended first, and the file is whole."""
    data = DATA[: 8 * MIB]
    client = uploader(cluster.nodes, token, data, is_careful=True)
    made = httpx.put(cluster.url(0, token, "x"), headers={"Upload-Complete": "?0"})
    client.location = made.headers["location"]
    fields = {"Content-Type": PARTIAL, "Upload-Complete": "?1", "Upload-Offset": "0", "Content-Length": str(len(data))}
    with (
        Request(cluster[up].url + client.location, "PATCH", fields) as older,
        Curl(cluster.url(1, token, "x")) as download,
    ):
        older.send_body(pieces_of(data[: 3 * MIB]))
        assert download.read(2 * MIB) == data[: 2 * MIB]
        client.offset = 0 if method == "PATCH" else None
        client.start()
        told = older.answer()
        assert (told.status, b"taken the place" in told.body) == (409, True)
        status, rest = download.finish()
        assert (status, data[: 2 * MIB] + rest == data) == (0, True)
        client.finish()
    check_rules(client.exchanges, knows_length=False)


def test_a_part_that_never_ends(redis_server: RedisServer) -> None:
    """It is ended as stalled, and the upload goes on with the next request."""
    with over_redis(redis_server, "ab", **{**LIMITS, "stall": 1}) as cluster:
        token = cluster.token()
        made = httpx.put(cluster.url(0, token, "x"), headers={"Upload-Complete": "?0"})
        address = cluster[0].url + made.headers["location"]
        fields = {"Content-Type": PARTIAL, "Upload-Complete": "?1", "Upload-Offset": "0", "Content-Length": "10"}
        with Curl(cluster.url(1, token, "x")) as download:
            with Request(address, "PATCH", fields) as request:
                request.send_body([b"hello"])
                answer = request.answer()
                assert answer.status == 408
            assert httpx.head(address).headers["upload-offset"] == "5"
            client = uploader(cluster.nodes, token, b"helloworld")
            client.location = made.headers["location"]
            client.offset = 5
            assert client.run().status == 200
            assert download.finish() == (0, b"helloworld")


# -- ends ------------------------------------------------------------------------------------------------------------


def test_an_uploader_that_does_not_return(redis_server: RedisServer) -> None:
    """The transfer ends after RELAY_RESUME_WAIT, the downloader is told, and the uploader that comes too late too."""
    with over_redis(redis_server, "ab", **{**LIMITS, "resume_wait": 2}) as cluster:
        token = cluster.token()
        made = httpx.put(cluster.url(0, token, "x"), headers={"Upload-Complete": "?0"})
        address = cluster[0].url + made.headers["location"]
        with Curl(cluster.url(1, token, "x")) as download:
            headers = {"Content-Type": PARTIAL, "Upload-Complete": "?0", "Upload-Offset": "0"}
            assert httpx.patch(address, content=b"hello", headers=headers, timeout=20).status_code == 204
            status, output = download.finish()
        assert status != 0
        assert output.startswith(b"hello")
        assert httpx.head(address).status_code == 404
        assert "outcome=uploader_gone bytes=5" in cluster.logs()


def test_a_token_that_is_revoked_while_the_uploader_is_away(cluster: Cluster, token: str) -> None:
    made = httpx.put(cluster.url(0, token, "x"), headers={"Upload-Complete": "?0"})
    address = cluster[0].url + made.headers["location"]
    with Curl(cluster.url(1, token, "x")) as download:
        headers = {"Content-Type": PARTIAL, "Upload-Complete": "?0", "Upload-Offset": "0"}
        assert httpx.patch(address, content=b"hello", headers=headers, timeout=20).status_code == 204
        assert httpx.delete(cluster.url(0, token)).status_code == 204
        assert download.finish()[0] != 0
    assert httpx.head(address).status_code == 401


@pytest.mark.parametrize("is_careful", [False, True])
def test_an_upload_that_is_cancelled_while_its_uploader_sends(cluster: Cluster, token: str, is_careful: bool) -> None:
    client = uploader(cluster.nodes, token, is_careful=is_careful)
    cancelled: list[int] = []

    def cancel(offset: int) -> None:
        if offset >= 10 * MIB and not cancelled:
            cancelled.append(httpx.delete(cluster[1].url + client.location).status_code)

    client.sent = cancel
    with Curl(cluster.url(1, token, "x") + "?wait=20") as download:
        client.start()
        assert download.finish()[0] != 0
        with pytest.raises(Failed):
            client.finish()
    assert cancelled == [204]
    check_rules(client.exchanges)


# -- behind HAProxy --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"is_careful": True, "piece": 8 * MIB}])
def test_behind_haproxy(cluster: Cluster, token: str, tmp_path: Path, options: dict[str, object]) -> None:
    """HAProxy passes 104 on."""
    with HAProxy(cluster.nodes, tmp_path) as proxy:
        client = Uploader([proxy.url], f"/{token}/x", DATA, **options)  # type: ignore[arg-type]
        client.sent = CutAt(3 * MIB, 20 * MIB)
        with Curl(f"{proxy.url}/{token}/x?wait=20") as download:
            client.start()
            assert_whole(client, download)
        interim = [
            each.status for exchanged in client.exchanges if exchanged.answer for each in exchanged.answer.interim
        ]
        assert interim in ([], [104])


def fields(cluster: Cluster, token: str) -> list[object]:
    """Return the fields of the token in Redis."""
    assert cluster.redis is not None
    return list(cluster.redis.hkeys(f"{cluster.prefix}:token:{{{id_of(token)}}}"))


def transfer(cluster: Cluster) -> Any:
    """Return the fields of the one transfer in Redis."""
    assert cluster.redis is not None
    return next((cluster.redis.hgetall(key) for key in cluster.keys("transfer")), {})
