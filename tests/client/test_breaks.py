"""Transfers that outlive their connections, their node, and either client."""

import contextlib
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.client.commands import receive, send, through
from tests.support.cluster import Cluster, over_redis, random_file
from tests.support.cutting import Cut, CuttingProxy
from tests.support.proxy import Proxy
from tests.support.redis import RedisServer
from tests.support.wait import wait_until

SIZE = 64_000_000


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_file(tmp_path_factory.mktemp("data") / "big.bin", SIZE)


@pytest.fixture
def slow(cluster: Cluster) -> Iterator[Proxy]:
    """Start a way to the first node that is slow enough to break in the middle of a file."""
    with contextlib.closing(Proxy(cluster[0].port)) as proxy:
        proxy.rate = 30_000_000
        yield proxy


def parts(folder: Path) -> list[Path]:
    return list(folder.glob(".*.part"))


def wait_for_bytes(folder: Path, count: int) -> None:
    wait_until(lambda: part_size(folder) > count, f"{count} bytes to be received")


def part_size(folder: Path) -> int:
    return sum(path.stat().st_size for path in parts(folder))


@pytest.mark.parametrize("cut", [Cut.FIN, Cut.RST])
def test_a_download_goes_on_after_its_connection_was_cut(cluster: Cluster, file: Path, inbox: Path, cut: Cut) -> None:
    ports = [node.port for node in cluster.nodes]
    with (
        send(cluster[0].url, file) as sender,
        contextlib.closing(CuttingProxy(ports, cut, [5_000_000, 9_000_000, 20_000_000])) as proxy,
        receive(through(proxy.port, sender.address()), cwd=inbox) as receiver,
    ):
        assert receiver.finish() == 0, receiver.said
        assert "checksum compared" in receiver.said
        assert sender.finish() == 0, sender.said
        assert proxy.cuts_left == 0
    assert "reconnecting (1) at" in receiver.said
    assert (inbox / file.name).read_bytes() == file.read_bytes()
    assert not parts(inbox)


def test_an_upload_goes_on_after_its_connection_was_cut(cluster: Cluster, slow: Proxy, file: Path, inbox: Path) -> None:
    with send(f"http://127.0.0.1:{slow.port}", file) as sender:
        address = through(cluster[1].port, sender.address())
        with receive(address, cwd=inbox) as receiver:
            for reached in (5_000_000, 20_000_000, 40_000_000):
                wait_for_bytes(inbox, reached)
                slow.cut()
            assert receiver.finish() == 0, receiver.said
            assert "checksum compared" in receiver.said
        assert sender.finish() == 0, sender.said
    assert "reconnecting (1)" in sender.said
    assert (inbox / file.name).read_bytes() == file.read_bytes()


def test_a_sender_on_a_dead_connection_comes_back(cluster: Cluster, slow: Proxy, file: Path, inbox: Path) -> None:
    """Its connection stays open and passes nothing, so only the relay can tell."""
    with send(f"http://127.0.0.1:{slow.port}", file) as sender:
        address = through(cluster[1].port, sender.address())
        with receive(address, cwd=inbox) as receiver:
            wait_for_bytes(inbox, 5_000_000)
            slow.forget()
            assert receiver.finish() == 0, receiver.said
            assert "checksum compared" in receiver.said
        assert sender.finish() == 0, sender.said
    assert (inbox / file.name).read_bytes() == file.read_bytes()


@pytest.mark.parametrize("side", ["send", "receive"])
def test_a_node_that_is_killed(redis_server: RedisServer, file: Path, inbox: Path, side: str) -> None:
    """The client's node dies, and another one takes its address, as behind a balancer."""
    with over_redis(redis_server, "ab") as cluster:
        node = 0 if side == "send" else 1
        with contextlib.closing(Proxy(cluster[node].port)) as proxy:
            proxy.rate = 30_000_000
            with send(f"http://127.0.0.1:{proxy.port}" if side == "send" else cluster[0].url, file) as sender:
                address = sender.address()
                address = through(proxy.port, address) if side == "receive" else through(cluster[1].port, address)
                with receive(address, cwd=inbox) as receiver:
                    wait_for_bytes(inbox, 5_000_000)
                    cluster.nodes[node].kill()
                    cluster.nodes[node] = cluster.nodes[node].successor()
                    assert receiver.finish() == 0, receiver.said
                    assert "checksum compared" in receiver.said
                assert sender.finish() == 0, sender.said
        cluster.wait_clean()  # of the node that died
    assert (inbox / file.name).read_bytes() == file.read_bytes()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL, signal.SIGTERM])
def test_a_receiver_that_is_stopped_goes_on(
    cluster: Cluster, slow: Proxy, file: Path, inbox: Path, how: signal.Signals
) -> None:
    with send(cluster[1].url, file) as sender:
        address = through(slow.port, sender.address())
        for reached in (5_000_000, 30_000_000):
            with receive(address, cwd=inbox) as receiver:
                wait_for_bytes(inbox, reached)
                receiver.process.send_signal(how)
                if how == signal.SIGKILL:
                    assert receiver.process.wait() == -signal.SIGKILL
                else:
                    assert receiver.finish() == 130
                    assert f"go on with: relay receive {address}" in receiver.said
            assert len(parts(inbox)) == 1
            assert not (inbox / file.name).exists()
        with receive(address, cwd=inbox) as receiver:
            assert receiver.finish() == 0, receiver.said
            assert "checksum compared" in receiver.said
            assert "which are here already" in receiver.said
        assert sender.finish() == 0, sender.said
    assert (inbox / file.name).read_bytes() == file.read_bytes()


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_a_receiver_that_is_stopped_at_the_very_end(cluster: Cluster, tmp_path: Path, inbox: Path, kind: str) -> None:
    """All was delivered, and nothing has its name yet: the next run gives it, if all is here, although the sender left.

    A file that takes the name meanwhile stands for the kill.
    """
    tree = tmp_path / "photos"
    tree.mkdir()
    file = random_file(tree / "a.jpg", 200_000)
    what = file if kind == "file" else tree
    sent = file.read_bytes()
    for is_whole in (True, False):
        with send(cluster[0].url, what) as sender:
            address = sender.address()
            with contextlib.closing(Proxy(cluster[1].port)) as slow:
                slow.rate = 200_000
                with receive(through(slow.port, address), cwd=inbox) as receiver:
                    wait_until(lambda: parts(inbox), "the part")
                    (inbox / what.name).write_bytes(b"in the way")
                    assert receiver.finish() == 5, receiver.said
            assert sender.finish() == 0, sender.said
        (inbox / what.name).unlink()
        (part,) = parts(inbox)
        if not is_whole:
            os.truncate(part if kind == "file" else part / "tree" / "photos" / "a.jpg", 1000)
        with receive(address, cwd=inbox) as receiver:
            if is_whole:
                assert receiver.finish() == 0, receiver.said
                assert "checksum compared" in receiver.said
                received = inbox / what.name if kind == "file" else inbox / "photos" / "a.jpg"
                assert received.read_bytes() == sent
                shutil.rmtree(inbox)
                inbox.mkdir()
            else:
                assert receiver.finish() == 4, receiver.said
                assert "were written before `relay receive` was stopped: ask the sender to send again" in receiver.said
                assert list(inbox.iterdir()) == []


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL, signal.SIGTERM])
def test_a_sender_that_is_stopped_goes_on(
    cluster: Cluster, slow: Proxy, file: Path, inbox: Path, state_home: Path, how: signal.Signals
) -> None:
    """By the command that it prints. The receiver waits meanwhile, and the checksum is that of the whole file."""
    server = f"http://127.0.0.1:{slow.port}"
    with contextlib.ExitStack() as senders:
        sender = senders.enter_context(send(server, file))
        address = sender.address()
        with receive(through(cluster[1].port, address), cwd=inbox) as receiver:
            for reached in (5_000_000, 20_000_000):
                wait_for_bytes(inbox, reached)
                sender.process.send_signal(how)
                if how == signal.SIGKILL:
                    assert sender.process.wait() == -signal.SIGKILL
                else:
                    assert sender.finish() == 130
                    assert sender.said.endswith(f"go on with: relay send --resume --server {server} {file}\n")
                (kept,) = state_home.rglob("*.json")
                assert kept.stat().st_mode & 0o077 == 0
                sender = senders.enter_context(send(server, "--resume", file))
                assert sender.address() == address
            assert receiver.finish() == 0, receiver.said
            assert "checksum compared" in receiver.said
            assert sender.finish() == 0, sender.said
    assert (inbox / file.name).read_bytes() == file.read_bytes()
    assert not list(state_home.rglob("*.json"))


def test_a_sender_that_is_stopped_says_so(cluster: Cluster, slow: Proxy, file: Path, inbox: Path) -> None:
    """Its connection is dead, as one is that has much unread, so the relay cannot see that it is closed."""
    with send(f"http://127.0.0.1:{slow.port}", file) as sender:
        address = through(cluster[1].port, sender.address())
        with receive(address, cwd=inbox) as receiver:
            wait_for_bytes(inbox, 5_000_000)
            slow.forget()
            sender.process.send_signal(signal.SIGINT)
            assert sender.finish() == 130
            receiver.wait_for("waiting for the sender to come back …")
            assert receiver.said.count("waiting for the sender to come back …") == 1
            with send(f"http://127.0.0.1:{slow.port}", "--resume", file) as sender_again:
                assert receiver.finish() == 0, receiver.said
                assert sender_again.finish() == 0, sender_again.said
    assert (inbox / file.name).read_bytes() == file.read_bytes()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGHUP])
def test_nobody_who_stops_a_command_waits_for_a_silent_relay(
    cluster: Cluster, slow: Proxy, file: Path, how: signal.Signals
) -> None:
    with send(f"http://127.0.0.1:{slow.port}", file) as sender:
        sender.wait_for("waiting for somebody")
        with slow.silent():
            before = slow.accepted
            wait_until(lambda: slow.accepted > before, "it to ask how far the receiver is")
            sender.process.send_signal(how)
            assert sender.finish(30) == 130
            assert "go on with: relay send --resume" in sender.said


def test_a_stopped_upload_can_be_cancelled(cluster: Cluster, file: Path, inbox: Path) -> None:
    with send(cluster[0].url, file) as sender:
        address = sender.address()
        with send(cluster[0].url, "--resume", file) as other:
            assert other.finish() == 1, other.said
            assert "another `relay send` is sending this" in other.said
        sender.process.send_signal(signal.SIGTERM)
        assert sender.finish() == 130
    with receive(address, cwd=inbox) as receiver:
        with send(cluster[1].url, "--cancel", file) as other:
            assert other.finish() == 1, "it is of another server"
            assert "no upload of this was stopped here" in other.said
        with send(cluster[0].url, "--cancel", file) as canceller:
            assert canceller.finish() == 0, canceller.said
        assert receiver.finish() == 4, receiver.said
    with send(cluster[0].url, "--resume", file) as sender:
        assert sender.finish() == 1, sender.said


def test_only_the_same_bytes_are_sent_on(cluster: Cluster, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    random_file(tree / "a", 10)
    with send(cluster[0].url, tree) as sender:
        sender.address()
        sender.process.send_signal(signal.SIGTERM)
        assert sender.finish() == 130
    random_file(tree / "b", 10)
    with send(cluster[0].url, "--resume", tree) as other:
        assert other.finish() == 5, other.said
        assert "was changed since the upload was stopped" in other.said
    with send(cluster[0].url, "--cancel", tree) as canceller:
        assert canceller.finish() == 0, canceller.said


def test_a_file_that_changes_is_not_sent_on(cluster: Cluster, slow: Proxy, tmp_path: Path, inbox: Path) -> None:
    file = random_file(tmp_path / "changing", SIZE)
    with send(f"http://127.0.0.1:{slow.port}", file) as sender:
        address = through(cluster[1].port, sender.address())
        with receive(address, cwd=inbox) as receiver:
            wait_for_bytes(inbox, 5_000_000)
            with file.open("r+b") as changed:
                changed.write(b"other")
            assert sender.finish() == 5
            assert "was changed while it was sent" in sender.said
            assert receiver.finish() == 4, receiver.said
    assert not (inbox / file.name).exists()


def test_a_file_of_state_that_is_damaged(cluster: Cluster, tmp_path: Path, state_home: Path) -> None:
    file = random_file(tmp_path / "file", 10)
    with send(cluster[0].url, file) as sender:
        sender.address()
        sender.stop()
    (kept,) = state_home.rglob("*.json")
    whole = kept.read_text()
    for text in ("{", "null", '{"token": 1}', '{"token": 1, "url": 2, "fingerprint": 3}'):
        kept.write_text(text)
        with send(cluster[0].url, "--resume", file) as other:
            assert other.finish() in (1, 2), other.said
            assert other.said.count("\n") == 1
    kept.write_text(whole)
