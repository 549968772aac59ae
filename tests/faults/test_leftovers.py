"""What the dead leave behind: nobody sees an upload that nobody makes, and no name stays counted as in use."""

import socket
import time
from collections.abc import Iterator

import httpx
import pytest

from relay.store.scripts import load_scripts
from tests.faults.conftest import Faulty, LinkedNode, connect, fill, joined
from tests.support.cluster import Curl, curl, id_of
from tests.support.wait import wait_until

MIB = 1024 * 1024


@pytest.fixture
def left(cluster: Faulty, token: str) -> None:
    """Leave the claim of an uploader whose disconnect is stuck behind the bytes that its node does not read."""
    with connect(cluster, 0, f"PUT /{token}/x HTTP/1.1\r\nHost: x\r\nContent-Length: {1024 * MIB}\r\n\r\n") as up:
        cluster.wait_state(token, "waiting")
        fill(up)
        time.sleep(2.1)  # an upload is trusted for two seconds from its beginning


@pytest.mark.usefixtures("left")
@pytest.mark.parametrize("node", [0, 1])
def test_a_head_does_not_see_an_uploader_that_has_left(cluster: Faulty, token: str, node: int) -> None:
    assert httpx.head(cluster.url(node, token, "x")).status_code == 404


@pytest.mark.usefixtures("left")
@pytest.mark.parametrize("node", [0, 1])
def test_the_list_of_a_token_does_not_show_an_uploader_that_has_left(cluster: Faulty, token: str, node: int) -> None:
    accept = {"accept": "application/json"}
    assert httpx.get(cluster.url(node, token), headers=accept).json()["transfers"] == []


@pytest.mark.usefixtures("left")
@pytest.mark.parametrize("node", [0, 1])
def test_a_download_waits_for_the_next_upload_after_one_that_has_left(cluster: Faulty, token: str, node: int) -> None:
    with Curl("-f", cluster.url(node, token, "x") + "?wait=20") as download:
        with Curl("-T", "-", cluster.url(0, token, "x"), pipe=True) as upload:
            upload.write_all(b"the next one")
            assert upload.finish() == (0, b"delivered 12 bytes\n")
        assert download.finish() == (0, b"the next one")


def test_uploads_of_a_killed_node_are_not_seen_by_anybody(cluster: Faulty, victim: LinkedNode, token: str) -> None:
    cluster.may_linger = True
    with Curl("-T", "-", f"{victim.url}/{token}/x", pipe=True):
        cluster.wait_state(token, "waiting")
        victim.kill()
        wait_until(lambda: httpx.head(cluster.url(1, token, "x")).status_code == 404, "HEAD to see nothing", timeout=10)
        listed = httpx.get(cluster.url(1, token), headers={"accept": "application/json"})
        assert listed.json()["transfers"] == []

        def page() -> tuple[int, list[object]]:
            shown = httpx.get(cluster.url(1, ""), headers={"accept": "application/json"}).json()
            return shown["waiting"], shown["transfers"]

        # The report of the other node may be older than the end of the test before.
        wait_until(lambda: page() == (0, []), "the page to show nothing", timeout=5)


@pytest.fixture
def narrow(cluster: Faulty) -> Iterator[LinkedNode]:
    """A node that lets a token use three names at a time."""
    yield from joined(cluster, "narrow", token_names=3)


def test_names_for_which_downloads_of_a_killed_node_waited_are_not_in_use(
    cluster: Faulty, victim: LinkedNode, narrow: LinkedNode, token: str
) -> None:
    assert cluster.redis is not None
    key = f"{cluster.prefix}:token:{{{id_of(token)}}}"
    waiting = [Curl(f"{victim.url}/{token}/{name}?wait=60") for name in ("one", "two", "three")]

    def wanted() -> int:
        assert cluster.redis is not None
        return sum(bytes(field).startswith(b"wanted:") for field in cluster.redis.hkeys(key))  # type: ignore[arg-type]

    wait_until(lambda: wanted() == 3, "three names to be wanted")
    assert httpx.put(f"{narrow.url}/{token}/four", content=b"x").status_code == 429
    victim.kill()
    for each in waiting:
        each.finish()
    alive = "relay_nodes_alive 3.0"  # a, b and narrow
    wait_until(lambda: alive in httpx.get(f"{narrow.url}/metrics").text, "the node to be dead", timeout=10)
    with Curl("-T", "-", f"{narrow.url}/{token}/four", pipe=True) as upload:
        upload.write_all(b"data")
        assert curl(cluster.url(1, token, "four") + "?wait=10").stdout == b"data"
        assert upload.finish() == (0, b"delivered 4 bytes\n")


def test_an_uploader_that_is_there_is_seen_by_everybody(cluster: Faulty, token: str) -> None:
    """The node probes it with an interim response, and vouches for it."""
    with connect(cluster, 0, f"PUT /{token}/x HTTP/1.1\r\nHost: x\r\nContent-Length: {1024 * MIB}\r\n\r\n") as up:
        cluster.wait_state(token, "waiting")
        fill(up)
        time.sleep(2.1)
        begun = time.monotonic()
        for node in (0, 1):
            assert httpx.head(cluster.url(node, token, "x")).status_code == 200
        assert time.monotonic() - begun < 4
        up.shutdown(socket.SHUT_RDWR)


def release(cluster: Faulty, node: int) -> None:
    """Let Redis have the commands that the node's link holds back, and wait until it has carried them out."""
    assert cluster[node].link.held
    cluster[node].link.holds = b""
    wait_until(lambda: not cluster[node].link.held, "the commands to be forwarded")
    assert cluster.redis is not None
    for _ in range(3):
        cluster.redis.ping()


def test_a_claim_that_redis_carries_out_after_its_uploader_was_refused_holds_no_name(
    cluster: Faulty, token: str
) -> None:
    assert cluster.redis is not None
    cluster[0].link.holds = load_scripts()["claim"].sha.encode()
    assert httpx.put(cluster.url(0, token, "x"), content=b"data", timeout=20).status_code == 503
    release(cluster, 0)
    assert not cluster.redis.exists(f"{cluster.prefix}:transfer:{{{id_of(token)}}}:x")
    assert httpx.head(cluster.url(1, token, "x")).status_code == 404


def test_a_join_that_redis_carries_out_after_its_downloader_was_refused_takes_no_upload(
    cluster: Faulty, token: str
) -> None:
    with Curl("-T", "-", cluster.url(0, token, "x"), pipe=True) as upload:
        cluster.wait_state(token, "waiting")
        cluster[1].link.holds = load_scripts()["join"].sha.encode()
        assert httpx.get(cluster.url(1, token, "x"), timeout=20).status_code == 503
        release(cluster, 1)
        upload.write_all(b"for the one who comes again")
        assert curl(cluster.url(1, token, "x")).stdout == b"for the one who comes again"
        assert upload.finish()[0] == 0
