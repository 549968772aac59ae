"""Senders and relays that lie: nothing is written where it must not be, nothing hangs, and no escape is printed."""

import asyncio
import contextlib
import resource
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.client.commands import Command, receive, send
from tests.support.cluster import Cluster, Curl, curl, random_file
from tests.support.wait import wait_until

LINK = "abcdefghr" + "0" * 32
Answering = Callable[[bytes], Iterator[bytes]]
OFFER = b'Content-Length: 5\r\nETag: "0123456789abcdef"\r\n'


class Liar:
    """An HTTP server that answers each request with what the test says, and then closes the connection."""

    def __init__(self, answer: Callable[[bytes], Iterator[bytes]]) -> None:
        self._answer = answer
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        server = asyncio.run_coroutine_threadsafe(asyncio.start_server(self._serve, "127.0.0.1", 0), self._loop).result(
            10
        )
        self._server = server
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        #: The heads of all requests so far.
        self.heads: list[bytes] = []

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._server.close)
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            self.heads.append(head)
            for piece in self._answer(head):
                writer.write(piece)
                await writer.drain()
        writer.close()


@contextlib.contextmanager
def liar(answer: Callable[[bytes], Iterator[bytes]]) -> Iterator[Liar]:
    with contextlib.closing(Liar(answer)) as server:
        yield server


def head_and_get(head: bytes, get: bytes, body: Callable[[], Iterator[bytes]]) -> Answering:
    """Return what answers a HEAD with one head, and a GET with another and a body."""

    def answer(request: bytes) -> Iterator[bytes]:
        yield (head if request.startswith(b"HEAD") else get) + b"\r\n"
        if not request.startswith(b"HEAD"):
            yield from body()

    return answer


def endless() -> Iterator[bytes]:
    while True:
        yield b"x" * 65536


OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("name", "saved"),
    [
        ("../x", "x"),
        ("/etc/passwd", "passwd"),
        ("a\\..\\b", "b"),
        (".bashrc", "_bashrc"),
        ("-rf", "_rf"),
        ("..", "fallback"),
        ("...", "_"),
        ("a\x1b[2Jb", "fallback"),
        ("a\u202efdp.exe", "fallback"),
        ("NUL.txt", "_NUL.txt"),
        ("n" * 300, "fallback"),
        ("ü" * 120 + ".bin", "ü" * 120 + ".bin"),
    ],
)
def test_a_hostile_name_is_made_safe(tmp_path: Path, inbox: Path, name: str, saved: str) -> None:
    encoded = "".join(f"%{byte:02X}" for byte in name.encode())
    head = OK + OFFER + f"Content-Disposition: attachment; filename*=UTF-8''{encoded}\r\n".encode()
    with (
        liar(head_and_get(head, head, lambda: iter([b"hello"]))) as server,
        receive(f"{server.url}/{LINK}/fallback", cwd=inbox) as receiver,
    ):
        assert receiver.finish() == 0, receiver.said
    assert "\x1b" not in receiver.said
    assert [path.name for path in inbox.iterdir()] == [saved]
    assert [path.name for path in tmp_path.iterdir()] == ["inbox"]


@pytest.mark.parametrize(
    ("head", "get", "status", "words"),
    [
        (OK + OFFER, OK + b'ETag: "0123456789abcdef"\r\n', 6, "more than the 5 bytes"),
        (OK + OFFER, OK + b'ETag: "another"\r\n', 6, "not the file that was announced"),
        (OK + OFFER, OK + OFFER + b"Content-Encoding: gzip\r\n", 6, "not the file that was announced"),
        (OK + OFFER, b"HTTP/1.1 206 x\r\n" + OFFER + b"Content-Range: bytes 3-7/8\r\n", 6, "not the rest"),
        (OK + OFFER, b"HTTP/1.1 412 x\r\n", 4, "the sender has left"),
        (b"HTTP/1.1 404 File not found\r\n", OK, 1, "may be no relay: check the link"),
        (OK + b"Content-Length: 5\r\n", OK, 6, "no ETag"),
        (OK + b'Content-Length: 5\r\nETag: "../../x"\r\n', OK, 6, "no ETag"),
        (OK + b'Content-Length: 9999999999999999\r\nETag: "a"\r\n', OK, 5, "bytes left"),
        (b"HTTP/1.1 302 x\r\nLocation: http://127.0.0.1:1/x\r\n", OK, 1, "the relay answered 302"),
        (b"HTTP/1.1 418 \x1b[2J\r\nContent-Length: 0\r\n", OK, 1, "the relay answered 418"),
        (b"SSH-2.0-OpenSSH\r\n", OK, 3, "cannot be reached"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000 + b"\r\n", OK, 3, "cannot be reached"),
    ],
)
def test_a_relay_that_lies_to_the_receiver(inbox: Path, head: bytes, get: bytes, status: int, words: str) -> None:
    with (
        liar(head_and_get(head, get, endless)) as server,
        receive("--give-up", "0.2", "--wait", "0.2", f"{server.url}/{LINK}/file", cwd=inbox) as receiver,
    ):
        assert receiver.finish(30) == status, receiver.said
        assert words in receiver.said
    assert "\x1b" not in receiver.said
    assert not (inbox / "file").exists()
    assert all(part.stat().st_size for part in inbox.iterdir())  # an empty part is of no use


def test_whoever_reads_the_output_may_leave() -> None:
    """As `| head -c 10` does."""
    head = OK + b'Content-Length: 100000000\r\nETag: "a"\r\n'
    with (
        liar(head_and_get(head, head, endless)) as server,
        receive("-o", "-", f"{server.url}/{LINK}/file") as receiver,
    ):
        assert receiver.process.stdout is not None
        receiver.process.stdout.read(10)
        receiver.process.stdout.close()
        assert receiver.finish() == 5
        assert receiver.said == "relay: whoever read the output has left\n"


def test_what_a_relay_says_is_printed_without_escapes(inbox: Path) -> None:
    body = b'{"code": "x", "detail": "bad \\u001b[2J\\r\\nmore \\u202e"}'
    refusal = b"HTTP/1.1 403 x\r\nContent-Type: application/problem+json\r\n"

    def answer(request: bytes) -> Iterator[bytes]:
        # A HEAD has no words, so the sender is the one to hear them.
        yield refusal + b"\r\n" + body
        yield from endless()

    (inbox / "file").write_bytes(b"x")
    token = inbox / "token"
    token.write_text("A" * 30)
    token.chmod(0o600)
    with liar(answer) as server, send(server.url, inbox / "file", "--token-file", token) as sender:
        assert sender.finish(30) == 1, sender.said
    assert "\x1b" not in sender.said


@pytest.mark.parametrize(
    ("answer", "status", "words"),
    [
        (OK + b"\r\nhello", 1, "does not answer as a relay does"),
        (OK + b"\r\n" + b"A" * 30, 1, "does not speak resumable uploads"),
        (b"HTTP/1.1 501 Unsupported method ('POST')\r\n\r\n<!DOCTYPE HTML>", 1, "does not answer as a relay does"),
        (b"HTTP/1.1 401 x\r\n\r\n", 1, "this relay wants a secret"),
        (b"HTTP/1.1 302 x\r\nLocation: http://127.0.0.1:1/\r\n\r\n", 1, "the relay answered 302"),
        (b"HTTP/1.1 201 x\r\nLocation: //127.0.0.1:1/evil\r\n\r\n" + b"A" * 30, 1, "does not speak resumable"),
    ],
)
def test_a_relay_that_lies_to_the_sender(tmp_path: Path, answer: bytes, status: int, words: str) -> None:
    file = random_file(tmp_path / "file", 10)
    with liar(lambda _: iter([answer])) as server, send(server.url, file) as sender:
        assert sender.finish(30) == status, sender.said
        assert words in sender.said


def test_the_upload_stays_at_its_relay(tmp_path: Path) -> None:
    """Whatever host and path `Location` names."""
    file = random_file(tmp_path / "file", 10)
    location = b"http://127.0.0.1:1/elsewhere/" + b"0" * 16 + b"A" * 22

    def answer(request: bytes) -> Iterator[bytes]:
        if request.startswith(b"PATCH"):
            yield b"HTTP/1.1 200 x\r\nUpload-Complete: ?1\r\nUpload-Offset: 10\r\n\r\n"
        else:
            yield b"HTTP/1.1 201 x\r\nLocation: " + location + b"\r\n\r\n" + b"A" * 30

    with liar(answer) as server, send(server.url, file) as sender:
        assert sender.finish(30) == 0, sender.said
        assert any(head.startswith(b"PATCH /" + b"A" * 30 + b"/file/0000") for head in server.heads)


def test_a_planted_link_is_not_followed(cluster: Cluster, tmp_path: Path, inbox: Path) -> None:
    token, victim = cluster.token(), tmp_path / "victim"
    victim.write_bytes(b"mine")
    with Curl("-T", "-", cluster.url(0, token, "x"), pipe=True) as upload:
        cluster.wait_state(token, "waiting")
        tag = curl("-I", cluster.url(0, token, "x")).stdout.decode().partition('etag: "')[2].partition('"')[0]
        (inbox / f".x.{tag}.part").symlink_to(victim)
        with receive(cluster.url(0, token, "x"), cwd=inbox) as receiver:
            assert receiver.finish() == 5, receiver.said
        upload.write_all(b"theirs")
        assert curl(cluster.url(0, token, "x")).stdout == b"theirs"
    assert victim.read_bytes() == b"mine"


def test_a_full_disk(cluster: Cluster, tmp_path: Path, inbox: Path) -> None:
    """A limit for the size of files stands for it. With room again, the receiver goes on."""
    file = random_file(tmp_path / "file", 3_000_000)
    with send(cluster[0].url, file) as sender:
        address = sender.address()
        limited = subprocess.run(
            [sys.executable, "-m", "relay", "receive", address],
            cwd=inbox,
            capture_output=True,
            check=False,
            timeout=60,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000)),
        )
        assert limited.returncode == 5, limited.stderr
        assert b"larger than may be written" in limited.stderr
        assert not (inbox / "file").exists()
        with receive(address, cwd=inbox) as receiver:
            assert receiver.finish() == 0, receiver.said
        assert sender.finish() == 0, sender.said
    assert (inbox / "file").read_bytes() == file.read_bytes()


def test_a_target_that_appears_meanwhile_is_not_overwritten(cluster: Cluster, tmp_path: Path, inbox: Path) -> None:
    token = cluster.token()
    with (
        Curl("-T", "-", cluster.url(0, token, "x"), pipe=True) as upload,
        receive(cluster.url(1, token, "x"), cwd=inbox) as receiver,
    ):
        upload.write(b"theirs")
        wait_until(lambda: list(inbox.glob(".x.*.part")), "the part")
        (inbox / "x").write_bytes(b"mine")
        upload.close()
        assert receiver.finish() == 5, receiver.said
        assert "exists by now" in receiver.said
        upload.finish()
    assert (inbox / "x").read_bytes() == b"mine"
    assert [path.read_bytes() for path in inbox.glob(".x.*.part")] == [b"theirs"]


def test_two_receivers_do_not_write_one_file(cluster: Cluster, tmp_path: Path, inbox: Path) -> None:
    token = cluster.token()
    with (
        Curl("-T", "-", cluster.url(0, token, "x"), pipe=True) as upload,
        receive(cluster.url(1, token, "x"), cwd=inbox) as first,
    ):
        upload.write(b"a")
        wait_until(lambda: any(path.stat().st_size for path in inbox.glob(".x.*.part")), "the first byte")
        with receive(cluster.url(0, token, "x"), cwd=inbox) as second:
            assert second.finish() == 5, second.said
            assert "another `relay receive`" in second.said
        upload.write_all(b"b")
        assert first.finish() == 0, first.said
        upload.finish()
    assert (inbox / "x").read_bytes() == b"ab"


def test_the_second_receiver_is_told_that_the_first_was_faster(cluster: Cluster, tmp_path: Path, inbox: Path) -> None:
    with send(cluster[0].url, "-", "--name", "x", stdin=subprocess.PIPE) as sender:
        with receive(sender.address(), "-o", tmp_path, cwd=inbox) as first:
            assert sender.process.stdin is not None
            sender.process.stdin.write(b"a")
            sender.process.stdin.flush()
            wait_until(lambda: any(path.stat().st_size for path in tmp_path.glob(".x.*.part")), "the first byte")
            with receive(sender.address(), cwd=inbox) as second:
                second.wait_for("reconnecting")
                sender.feed(b"b")
                assert second.finish() == 4, second.said
                assert "somebody else has received it: ask the sender to send again" in second.said
            assert first.finish() == 0, first.said
        assert sender.finish() == 0, sender.said
    assert list(inbox.iterdir()) == []


def test_the_commands_start_without_a_server(tmp_path: Path) -> None:
    code = (
        "import sys; from click.testing import CliRunner; from relay.cli.main import main;"
        "print(CliRunner().invoke(main, ['send', '--help']).output);"
        "print([name for name in ('starlette', 'uvicorn', 'redis', 'segno') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")
    with Command("--help") as command:
        output, _ = command.process.communicate(timeout=30)
    assert all(heading in output.decode() for heading in ("Transfer files:", "Run the relay:", "Look after a cluster:"))
