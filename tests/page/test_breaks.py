"""A page goes on by itself through every break in the middle of a file, and says what happens meanwhile."""

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.client.commands import receive
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


class Closing(HAProxy):
    """A balancer that closes each connection after one response.

    If a connection breaks that has been used before, Chromium itself sends the request once more, from its first byte.
    Through this balancer no connection has, so the page alone goes on.
    """

    def start(self, *options: str) -> None:
        self.text, count = re.subn(r"(?m)^(frontend relay\n)", r"\1    option httpclose\n", self.text)
        assert count == 1
        super().start(*options)


@pytest.fixture(scope="module")
def closing(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HAProxy]:
    with Closing(cluster.nodes, tmp_path_factory.mktemp("closing")) as balancer:
        yield balancer


@contextlib.contextmanager
def receiving(kind: str, receiver: Side, link: str, folder: Path) -> Iterator[Callable[[], Path]]:
    """Receive what is behind a link. Yield a function that waits for the end and returns what has arrived."""
    if kind == "curl":
        with Curl("-f", "-o", folder / "got", address_of(link, link.partition("/receive#")[0])) as download:

            def finish() -> Path:
                assert download.finish() == (0, b"")
                return folder / "got"

            yield finish
    elif kind == "page":
        receiver.page.goto(link)
        receiver.page.locator("#download").wait_for(state="visible")
        with receiver.page.expect_download() as saved:
            receiver.page.locator("#download").click()

        def finish() -> Path:
            receiver.page.locator('#file[data-state="whole"]').wait_for()
            return Path(saved.value.path())

        yield finish
    else:
        with receive(link, cwd=folder) as command:

            def finish() -> Path:
                assert command.finish() == 0, command.said
                return folder / "root" / "file"

            yield finish


@pytest.mark.parametrize("receives", ["curl", "page", "folder"])
def test_the_senders_node_is_killed(
    sides: tuple[Side, Side], cluster: Cluster, closing: HAProxy, big_file: Path, tmp_path: Path, receives: str
) -> None:
    """The receiver is connected to the other node, so it only sees a pause. The page goes on from there."""
    sender, receiver = sides
    sender.slow_down(RATE // 4)
    if receives == "folder":
        (tmp_path / "root").mkdir()
        (tmp_path / "root" / "file").hardlink_to(big_file)
        link = sender.send(closing.url, tmp_path / "root", "#folder")
    else:
        link = sender.send(closing.url, big_file)
    index = uploading(cluster)
    link = link.replace(closing.url, cluster.nodes[1 - index].url)
    (tmp_path / "inbox").mkdir()
    with receiving(receives, receiver, link, tmp_path / "inbox") as finish:
        sender.wait_moving()
        assert sender.share() < 0.7
        before = len(sender.uploads)
        sender.slow_down(-1)
        successor = kill(cluster, index)
        assert digest(finish()) == digest(big_file)
    sender.wait_state("delivered")
    (method, offset), *_ = later = sender.uploads[before:]
    assert (method, offset) == ("HEAD", None)
    method, offset = later[-1]
    assert method == "PATCH"
    assert 0 < int(offset or 0) < SIZE
    assert ("PATCH", "0") not in later
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
    with Gateway(cluster.nodes, tmp_path) as gateway:
        link = sender.send(gateway.url, big_file)
        with Curl("-f", "-o", tmp_path / "got", address_of(link, gateway.url)) as download:
            assert download.finish() == (0, b"")
        sender.wait_state("delivered")
        assert digest(tmp_path / "got") == digest(big_file)
        assert sender.requests.count("PATCH") > SIZE // (8 * MIB)
