"""A page goes on by itself through every break in the middle of a file, and says what happens meanwhile."""

import os
import re
from pathlib import Path

import httpx
import pytest

from tests.page.conftest import MIB, SIZE, Side, address_of, digest
from tests.support.cluster import Cluster, Curl, NodeProcess
from tests.support.haproxy import HAProxy
from tests.support.wait import wait_until

#: Bytes a second that the slower side moves, so that a break comes in the middle.
RATE = 16 * MIB
#: Seconds without a network, beyond those in which the page notices it.
AWAY = 20 if os.environ.get("RELAY_TEST_FULL") else 0


def uploading(cluster: Cluster) -> int:
    """Return the index of the node to which the sender of the only transfer is connected."""

    def found() -> str:
        transfers = httpx.get(cluster[0].url, headers={"accept": "application/json"}).json()["transfers"]
        # One that is interrupted has been created, perhaps through another node than the one that will get its bytes.
        return next((str(each["uploader"]) for each in transfers if each["state"] == "waiting"), "")

    node = wait_until(found, "the upload to be shown")
    return next(index for index, each in enumerate(cluster.nodes) if each.id == node)


def kill(cluster: Cluster, index: int) -> NodeProcess:
    """Kill a node, and start another one in its place."""
    cluster.nodes[index].kill()
    cluster.nodes[index] = cluster.nodes[index].successor()
    return cluster.nodes[index]


def test_the_senders_network_is_away(
    sides: tuple[Side, Side], haproxy: HAProxy, big_file: Path, tmp_path: Path
) -> None:
    """The machine is slow too, as old phones are."""
    sender, _ = sides
    link = sender.send(haproxy.url, big_file)
    sender.slow_processor(6)
    command = ("-f", "--limit-rate", str(RATE), "-o", tmp_path / "got", address_of(link, haproxy.url))
    with Curl(*command) as download:
        sender.wait_moving()
        sender.context.set_offline(True)
        sender.wait_state("reconnecting")
        sender.page.wait_for_selector("text=You are offline")
        assert download.process.poll() is None
        sender.page.wait_for_timeout(AWAY * 1000)
        sender.context.set_offline(False)
        assert download.finish() == (0, b"")
    sender.wait_state("delivered")
    assert digest(tmp_path / "got") == digest(big_file)


@pytest.mark.parametrize("receives", ["curl", "page"])
def test_the_senders_node_is_killed(
    sides: tuple[Side, Side], cluster: Cluster, haproxy: HAProxy, big_file: Path, tmp_path: Path, receives: str
) -> None:
    """The receiver is connected to the other node, so it only sees a pause.

    If the connection had been used before, Chromium itself sends the request once more, from its first byte. The relay
    throws away what the receiver has already.
    """
    sender, receiver = sides
    link = sender.send(haproxy.url, big_file)
    index = uploading(cluster)
    other = cluster.nodes[1 - index].url
    if receives == "curl":
        with Curl("-f", "--limit-rate", str(RATE), "-o", tmp_path / "got", address_of(link, other)) as download:
            sender.wait_moving()
            assert sender.share() < 0.7
            successor = kill(cluster, index)
            assert download.finish() == (0, b"")
        got = tmp_path / "got"
    else:
        receiver.page.goto(link.replace(haproxy.url, other))
        receiver.page.locator("#download").wait_for(state="visible")
        sender.slow_down(RATE)
        with receiver.page.expect_download() as saved:
            receiver.page.locator("#download").click()
        sender.wait_moving()
        assert sender.share() < 0.7
        successor = kill(cluster, index)
        assert saved.value.failure() is None
        got = Path(saved.value.path())
    sender.wait_state("delivered")
    assert digest(got) == digest(big_file)
    successor.wait_ready()


def test_the_receivers_connection_is_cut(
    sides: tuple[Side, Side], haproxy: HAProxy, big_file: Path, tmp_path: Path
) -> None:
    sender, _ = sides
    address = address_of(sender.send(haproxy.url, big_file), haproxy.url)
    with Curl("-f", "--limit-rate", str(RATE), "-o", tmp_path / "got", address) as download:
        sender.wait_moving()
        download.process.kill()
        download.process.wait()
    sender.wait_state("paused")
    with Curl("-f", "-C", "-", "-o", tmp_path / "got", address) as download:
        assert download.finish() == (0, b"")
    sender.wait_state("delivered")
    assert digest(tmp_path / "got") == digest(big_file)


class Gateway(HAProxy):
    """A balancer that refuses requests with more than 10 MB, as many gateways do."""

    def start(self, *options: str) -> None:
        rule = "    http-request deny deny_status 413 if { req.hdr_val(Content-Length) gt 10000000 }\n"
        self.text, count = re.subn(r"(?m)^(frontend relay\n)", rf"\1{rule}", self.text)
        assert count == 1
        super().start(*options)


def test_a_gateway_that_refuses_large_requests_gets_pieces(
    sides: tuple[Side, Side], cluster: Cluster, big_file: Path, tmp_path: Path
) -> None:
    sender, _ = sides
    with Gateway(cluster, tmp_path) as gateway:
        link = sender.send(gateway.url, big_file)
        with Curl("-f", "-o", tmp_path / "got", address_of(link, gateway.url)) as download:
            assert download.finish() == (0, b"")
        sender.wait_state("delivered")
        assert digest(tmp_path / "got") == digest(big_file)
        assert sender.requests.count("PATCH") > SIZE // (8 * MIB)
