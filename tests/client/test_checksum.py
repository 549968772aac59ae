"""SHA-256 from end to end: compared whoever sends, and it tells a file that was changed on its way."""

import asyncio
import base64
import contextlib
import hashlib
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.client.commands import receive, send
from tests.support.cluster import Cluster, Curl, random_file
from tests.support.proxy import Proxy

SIZE = 3_000_000
#: The heads of requests and answers are smaller, so that only bytes of the file are changed.
_HEAD_MOST = 4096


class Changing(Proxy):
    """Forwards to a node, and changes one byte of the file in requests or in replies."""

    def __init__(self, target: int, *, replies: bool) -> None:
        self._changes_replies = replies
        self.has_changed = False
        super().__init__(target)

    async def _forward(
        self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, replies: bool
    ) -> None:
        while replies is self._changes_replies and not self.has_changed and (piece := await reader.read(65536)):
            if len(piece) > _HEAD_MOST:
                # Not at an end of the piece, where a head or the frame of a chunk may be; and no zeros, which a tar
                # takes for its end.
                piece = piece[:-1000] + bytes([piece[-1000] ^ 1]) + piece[-999:]
                self.has_changed = True
            writer.write(piece)
            await writer.drain()
        await super()._forward(number, reader, writer, replies=replies)


@contextlib.contextmanager
def changing(cluster: Cluster, side: str) -> Iterator[tuple[str, Changing]]:
    """Yield the address of a proxy that changes a byte of an upload or a download, and the proxy."""
    with contextlib.closing(Changing(cluster[0].port, replies=side == "download")) as proxy:
        yield f"http://127.0.0.1:{proxy.port}", proxy


def at(server: str, address: str) -> str:
    return re.sub(r"^http://[^/]+", server, address)


def digest_of(data: bytes) -> str:
    return base64.b64encode(hashlib.sha256(data).digest()).decode()


@pytest.mark.parametrize("side", ["upload", "download"])
@pytest.mark.parametrize("kind", ["file", "directory", "stdin", "archive"])
def test_one_changed_byte_is_noticed(cluster: Cluster, tmp_path: Path, inbox: Path, kind: str, side: str) -> None:
    """The sender cannot know, and nothing gets its final name."""
    tree = tmp_path / "tree"
    tree.mkdir()
    file = random_file(tree / "file", SIZE)
    what: list[str | Path] = [file] if kind == "file" else ["-", "--name", "x"] if kind == "stdin" else [tree]
    with changing(cluster, side) as (server, proxy):
        direct = cluster[1].url
        with send(
            server if side == "upload" else direct, *what, stdin=subprocess.PIPE if kind == "stdin" else None
        ) as sender:
            address = at(server if side == "download" else direct, sender.address())
            with receive(address, *(["--archive"] if kind == "archive" else []), cwd=inbox) as receiver:
                sender.feed(file.read_bytes())
                assert receiver.finish() == 6, receiver.said
                assert "its SHA-256 differs" in receiver.said
            assert sender.finish() == 0, sender.said
        assert proxy.has_changed
    assert list(inbox.iterdir()) == []


def test_the_output_of_a_pipe_cannot_be_taken_back_but_its_command_fails(
    cluster: Cluster, tmp_path: Path, inbox: Path
) -> None:
    file = random_file(tmp_path / "file", SIZE)
    with changing(cluster, "download") as (server, _), send(cluster[1].url, file) as sender:
        with receive(at(server, sender.address()), "-o", "-") as receiver:
            output, error = receiver.process.communicate(timeout=60)
            assert (receiver.process.returncode, len(output)) == (6, SIZE)
            assert output != file.read_bytes()
            assert b"SHA-256 differs" in receiver.said.encode() + error
        assert sender.finish() == 0


@pytest.mark.parametrize("kind", ["file", "empty", "directory", "stdin"])
def test_both_commands_tell_a_script_the_checksum(cluster: Cluster, tmp_path: Path, inbox: Path, kind: str) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    file = random_file(tree / "file", 0 if kind == "empty" else SIZE)
    what: list[str | Path] = [tree] if kind == "directory" else ["-", "--name", "file"] if kind == "stdin" else [file]
    with send(
        cluster[0].url, *what, "--json", stdin=subprocess.PIPE if kind == "stdin" else subprocess.DEVNULL
    ) as sender:
        assert sender.process.stdout is not None
        ready = json.loads(sender.process.stdout.readline())
        with receive("--json", at(cluster[1].url, ready["link"]), cwd=inbox) as receiver:
            sender.feed(file.read_bytes())
            received = json.loads(receiver.process.communicate(timeout=60)[0].splitlines()[-1])
        sent = json.loads(sender.process.communicate(timeout=60)[0].splitlines()[-1])
    assert (received["event"], received["compared"]) == ("done", True)
    assert received["sha256"] == sent["sha256"]
    if kind != "directory":
        assert sent["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("given", "status", "words"),
    [
        (None, 0, "received 3.0 MB as x\n"),
        ("right", 0, "received 3.0 MB as x, checksum compared\n"),
        ("wrong", 6, "its SHA-256 differs"),
    ],
)
def test_what_curl_sends(
    cluster: Cluster, tmp_path: Path, inbox: Path, given: str | None, status: int, words: str
) -> None:
    """It need not give a checksum, and nobody is alarmed then."""
    file, token = random_file(tmp_path / "file", SIZE), cluster.token()
    value = digest_of(file.read_bytes() if given == "right" else b"another file")
    header = ["-H", f"Repr-Digest: sha-256=:{value}:"] if given else []
    with (
        Curl("--fail-with-body", "-T", file, *header, cluster.url(0, token, "x")) as upload,
        receive(cluster.url(1, token, "x"), cwd=inbox) as receiver,
    ):
        assert receiver.finish() == status, receiver.said
        assert upload.finish()[0] == 0
    assert receiver.said.endswith(words) or status
    assert words in receiver.said
    assert [path.name for path in inbox.iterdir()] == ([] if status else ["x"])


def test_curl_can_compare_what_relay_sends(cluster: Cluster, tmp_path: Path) -> None:
    """Either in the headers of the download, or by a question after it."""
    file = random_file(tmp_path / "file", 20_000_000)
    with send(cluster[0].url, file) as sender:
        address = at(cluster[1].url, sender.address())
        with Curl("-f", "-D", "-", "-o", tmp_path / "received", address) as download:
            head = download.finish()[1].decode().lower()
        tag = head.partition("etag: ")[2].partition("\r\n")[0]
        with Curl("-f", "-I", "-H", f"If-Match: {tag}", address) as question:
            answer = question.finish()[1].decode()
        assert sender.finish() == 0, sender.said
    assert "repr-digest" not in head, "the sender has not read it all when the headers go out"
    assert f"repr-digest: sha-256=:{digest_of(file.read_bytes())}:\r\n" in answer


def test_a_checksum_is_there_before_the_receiver_if_the_file_is_small(cluster: Cluster, tmp_path: Path) -> None:
    file = random_file(tmp_path / "file", 10)
    with send(cluster[0].url, file) as sender:
        address = sender.address()
        sender.wait_for("waiting for somebody")
        with Curl("-f", "-i", address) as download:
            assert f"repr-digest: sha-256=:{digest_of(file.read_bytes())}:\r\n" in download.finish()[1].decode(
                "latin-1"
            )
        assert sender.finish() == 0
