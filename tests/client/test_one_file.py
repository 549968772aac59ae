"""One file from `relay send` to `relay receive`, to curl and back, without trouble; and refusals before it begins."""

import json
import os
import shutil
import stat
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.client.commands import Command, receive, send
from tests.support.cluster import Cluster, Curl, random_file
from tests.support.wait import wait_until

SIZE = 5_000_000


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return random_file(tmp_path / "grüße 1.bin", SIZE)


def other(address: str, cluster: Cluster) -> str:
    """Return the same address at the other node."""
    return address.replace(cluster[0].url, cluster[1].url)


def test_a_file_arrives_through_two_nodes(cluster: Cluster, file: Path, inbox: Path) -> None:
    with send(cluster[0].url, file) as sender:
        address = sender.address()
        sender.wait_for("waiting for somebody to receive it")
        with receive(other(address, cluster), cwd=inbox) as receiver:
            assert receiver.finish() == 0, receiver.said
            assert "received 5.0 MB as grüße 1.bin" in receiver.said
        assert sender.finish() == 0, sender.said
        assert "delivered 5.0 MB" in sender.said
    assert (inbox / file.name).read_bytes() == file.read_bytes()
    assert [path.name for path in inbox.iterdir()] == [file.name]


def test_curl_receives_what_relay_sends(cluster: Cluster, file: Path) -> None:
    with send(cluster[0].url, file) as sender:
        with Curl("-f", other(sender.address(), cluster)) as download:
            assert download.finish() == (0, file.read_bytes())
        assert sender.finish() == 0, sender.said


def test_wget_receives_what_relay_sends(cluster: Cluster, file: Path, inbox: Path) -> None:
    """Under the name that the sender gave."""
    if not shutil.which("wget"):
        pytest.skip("no wget on PATH: it was not tried as a receiver of relay send")
    with send(cluster[0].url, file) as sender:
        command = ["wget", "-q", "--content-disposition", other(sender.address(), cluster)]
        assert subprocess.run(command, cwd=inbox, timeout=60, check=False).returncode == 0
        assert sender.finish() == 0, sender.said
    (received,) = inbox.iterdir()
    assert received.read_bytes() == file.read_bytes()


@pytest.mark.parametrize("has_length", [True, False])
def test_relay_receives_what_curl_sends(cluster: Cluster, file: Path, inbox: Path, has_length: bool) -> None:
    token = cluster.token()
    address = cluster.url(1, token, "x.bin")
    with (
        receive(address, cwd=inbox) as receiver,
        Curl("--fail-with-body", "-T", file if has_length else "-", cluster.url(0, token, "x.bin"), pipe=True) as up,
    ):
        if not has_length:
            up.write_all(file.read_bytes())
        assert receiver.finish() == 0, receiver.said
        assert up.finish() == (0, b"delivered %d bytes\n" % SIZE)
    assert (inbox / "x.bin").read_bytes() == file.read_bytes()


def test_an_upload_of_unknown_length_arrives_at_stdout(cluster: Cluster, file: Path) -> None:
    token = cluster.token()
    with (
        Curl("-T", "-", cluster.url(0, token, "x"), pipe=True) as upload,
        receive("-o", "-", cluster.url(1, token, "x")) as receiver,
    ):
        upload.write_all(file.read_bytes())
        output, _ = receiver.process.communicate(timeout=60)
        assert (receiver.process.returncode, output) == (0, file.read_bytes())
        assert upload.finish()[0] == 0


def test_a_device_or_pipe_is_written_to_and_not_replaced(cluster: Cluster, file: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with (
        send(cluster[0].url, file) as sender,
        receive("--overwrite", "-o", pipe, other(sender.address(), cluster)) as receiver,
    ):
        assert pipe.read_bytes() == file.read_bytes()
        assert receiver.finish() == 0, receiver.said
        assert sender.finish() == 0, sender.said
    assert pipe.is_fifo()
    assert receiver.said == "received 5.0 MB, checksum compared\n"


@pytest.mark.parametrize("size", [0, 1])
def test_a_tiny_file_arrives(cluster: Cluster, tmp_path: Path, inbox: Path, size: int) -> None:
    file = random_file(tmp_path / "tiny", size)
    with send(cluster[0].url, file) as sender, receive(other(sender.address(), cluster), cwd=inbox) as receiver:
        assert receiver.finish() == 0, receiver.said
        assert sender.finish() == 0, sender.said
    assert (inbox / "tiny").read_bytes() == file.read_bytes()


def test_stdin_is_sent(cluster: Cluster, file: Path, inbox: Path) -> None:
    with send(cluster[0].url, "-", "--name", "pipe", stdin=subprocess.PIPE) as sender:
        address = sender.address()
        with receive(other(address, cluster), cwd=inbox) as receiver:
            sender.feed(file.read_bytes())
            assert receiver.finish() == 0, receiver.said
        assert sender.finish() == 0, sender.said
    assert (inbox / "pipe").read_bytes() == file.read_bytes()


@pytest.mark.parametrize("way", ["page", "environment", "stdin"])
def test_the_link_may_come_in_other_ways(cluster: Cluster, file: Path, inbox: Path, way: str) -> None:
    with send(cluster[0].url, file) as sender:
        address = sender.address()
        page = address.replace(cluster[0].url + "/", cluster[0].url + "/receive#")
        given = {"page": [page], "environment": [], "stdin": ["-"]}[way]
        environment = {"RELAY_LINK": address} if way == "environment" else {}
        with receive(*given, cwd=inbox, environment=environment, stdin=subprocess.PIPE) as receiver:
            receiver.feed((address + "\n").encode() if way == "stdin" else b"")
            assert receiver.finish() == 0, receiver.said
        assert sender.finish() == 0
    assert (inbox / file.name).read_bytes() == file.read_bytes()


def test_json_tells_a_script_what_happens(cluster: Cluster, file: Path, inbox: Path) -> None:
    with send(cluster[0].url, file, "--json") as sender:
        assert sender.process.stdout is not None
        ready = json.loads(sender.process.stdout.readline())
        assert (ready["event"], ready["name"], ready["bytes"]) == ("ready", file.name, SIZE)
        with receive("--json", ready["link"], cwd=inbox) as receiver:
            events = [json.loads(line) for line in receiver.process.communicate(timeout=60)[0].splitlines()]
        assert events[0] == {"event": "ready", "name": file.name, "bytes": SIZE}
        assert events[-1].items() >= {"event": "done", "bytes": SIZE, "path": file.name}.items()
        done = json.loads(sender.process.communicate(timeout=60)[0].splitlines()[-1])
        assert done.items() >= {"event": "done", "bytes": SIZE}.items()


def test_an_existing_file_is_not_overwritten_and_the_upload_not_taken(
    cluster: Cluster, file: Path, inbox: Path
) -> None:
    (inbox / file.name).write_bytes(b"mine")
    with send(cluster[0].url, file) as sender:
        address = sender.address()
        with receive(address, cwd=inbox) as receiver:
            assert receiver.finish() == 5
            assert "exists already: use --overwrite" in receiver.said
        assert (inbox / file.name).read_bytes() == b"mine"
        with receive("--overwrite", address, cwd=inbox) as receiver:
            assert receiver.finish() == 0, receiver.said
        assert sender.finish() == 0
    assert (inbox / file.name).read_bytes() == file.read_bytes()


def test_the_file_may_have_another_name_or_folder(cluster: Cluster, file: Path, inbox: Path) -> None:
    for output, path in ((inbox / "other", inbox / "other"), (inbox, inbox / "named")):
        with send(cluster[0].url, file, "--name", "named") as sender:
            with receive("-o", output, sender.address()) as receiver:
                assert receiver.finish() == 0, receiver.said
            assert sender.finish() == 0
        assert path.read_bytes() == file.read_bytes()


def test_a_token_that_exists_is_used(cluster: Cluster, file: Path, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(cluster.token() + "\n")
    token.chmod(stat.S_IRUSR)
    with send(cluster[0].url, file, "--token-file", token) as sender:
        assert f"/{token.read_text()[:8]}r" in sender.address()
        with Curl(sender.address()) as download:
            assert download.finish() == (0, file.read_bytes())
        assert sender.finish() == 0


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["send", "x"], 2, "--server or RELAY_SERVER"),
        (["send", "--server", "ftp://x", "x"], 2, "must look like https://relay.example"),
        (["send", "--server", "http://user:word@x", "x"], 2, "no password"),
        (["send", "--server", "http://[::1", "x"], 2, "must look like https://relay.example"),
        (["send", "--server", "http://a..b", "x"], 2, "must look like https://relay.example"),
        (["send", "--server", "http://127.0.0.1:1", "--give-up", "nan", "x"], 2, "not a number of seconds"),
        (["send", "--server", "http://127.0.0.1:1", "/proc/cpuinfo"], 5, "does not tell its size: send it with"),
        (["send", "--server", "http://127.0.0.1:1", "/proc/cpuinfo", "file"], 5, "does not tell its size"),
        (["send", "--server", "http://127.0.0.1:1", "missing"], 5, "cannot read missing: No such file"),
        (["send", "--server", "http://127.0.0.1:1", "/dev/null"], 5, "no regular file"),
        (["send", "--server", "http://127.0.0.1:1", "-", "file"], 2, "stdin cannot be sent together with files"),
        (["send", "--server", "http://127.0.0.1:1", "-"], 2, "stdin has no name: give it one with --name"),
        (["send", "--server", "http://127.0.0.1:1", "--name", "a/b", "file"], 2, "contains a slash"),
        (["send", "--server", "http://127.0.0.1:1", "--name", "..", "."], 2, "The name is . or .."),
        (["send", "--server", "http://127.0.0.1:1", "file"], 3, "cannot reach http://127.0.0.1:1"),
        (["receive", "https://relay.example/x"], 2, "this is not a link of a relay"),
        (["receive", "http://[::1/" + "a" * 30 + "/x"], 2, "must look like https://relay.example"),
        (["receive", "--wait", "nan", "http://127.0.0.1:1/" + "a" * 30 + "/x"], 2, "not a number of seconds"),
        (["receive", "https://relay.example/abcdefghs" + "0" * 32 + "/x"], 2, "can only send"),
        (["receive", "--give-up", "0", "http://127.0.0.1:1/" + "a" * 30 + "/x"], 3, "cannot be reached"),
        (["receive", "-o", "-", "--json", "http://127.0.0.1:1/" + "a" * 30 + "/x"], 2, "both write to stdout"),
    ],
)
def test_refusals_are_one_line_and_a_status(tmp_path: Path, arguments: list[str], status: int, words: str) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with Command(*arguments, cwd=tmp_path) as command:
        assert command.finish() == status, command.said
        assert words in command.said
        assert status == 2 or command.said.count("\n") == 1


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("HTTP_PROXY", "http://[::1", "cannot use the proxy in the environment"),
        ("ALL_PROXY", "ftp://x", "cannot use the proxy in the environment"),
        ("ALL_PROXY", "socks5://x", "only http:// and https:// are supported"),
        ("NO_PROXY", "[::1", "cannot use the proxy in the environment"),
        ("RELAY_TOKEN_SECRET", "schlüssel", "a character that no header can have"),
        ("RELAY_TOKEN_SECRET", "two\nlines", "a character that no header can have"),
    ],
)
def test_what_the_environment_says_may_be_wrong(tmp_path: Path, variable: str, value: str, words: str) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with send("http://127.0.0.1:1", "file", cwd=tmp_path, environment={variable: value}) as command:
        assert command.finish() == 2, command.said
        assert words in command.said
        assert command.said.count("\n") == 1


def test_what_the_relay_refuses(cluster: Cluster, tmp_path: Path) -> None:
    for address, words in (
        (cluster.url(0, "A" * 30, "x"), "unknown or has expired"),
        (cluster.url(0, cluster.token(), "x"), "nobody is sending this"),
    ):
        with receive("--wait", "0", address, cwd=tmp_path) as receiver:
            assert receiver.finish() == 1, receiver.said
            assert words in receiver.said


def test_the_sender_shows_what_the_receiver_has(cluster: Cluster, tmp_path: Path) -> None:
    """And not what was buffered on the way: that is all of this file at once."""
    file = random_file(tmp_path / "file", 3_000_000)
    with send(cluster[0].url, file, "--json") as sender:
        assert sender.process.stdout is not None
        address = json.loads(sender.process.stdout.readline())["link"]
        with Curl("-o", tmp_path / "out", "--limit-rate", "500K", other(address, cluster)) as download:
            lines = map(json.loads, sender.process.stdout)
            shown = [line["delivered"] for line in lines if line["event"] == "progress"]
            assert download.finish()[0] == 0
        assert sender.finish() == 0, sender.said
    assert shown == sorted(shown)
    assert any(0 < each < 3_000_000 for each in shown)


def test_every_node_knows_how_far_a_transfer_is(cluster: Cluster, tmp_path: Path) -> None:
    """Also if both clients are on one node, so that the bytes do not pass through Redis, and another node is asked."""
    file = tmp_path / "file"
    file.touch()
    os.truncate(file, 200_000_000)
    token = cluster.token()
    address = cluster.url(0, token, "x")

    def delivered() -> int:
        answer = httpx.get(cluster.url(1, token), headers={"accept": "application/json"}).json()
        return max((transfer["delivered"] for transfer in answer["transfers"]), default=0)

    with Curl("-T", file, address), Curl("-o", "/dev/null", "--limit-rate", "10M", address):
        first = wait_until(delivered, "some of it to be delivered")
        wait_until(lambda: delivered() > first, "more of it", timeout=4)  # a side is looked after every 5 s
        httpx.delete(address)
