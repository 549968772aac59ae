"""Directories and several files: laid out, made again from any byte on, unpacked from anybody."""

import contextlib
import filecmp
import io
import itertools
import os
import random
import re
import signal
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from relay.client.archive import MEDIA_TYPE, ArchiveSource
from relay.client.failures import Exit, Failure
from relay.client.unpack import Tree
from tests.client.commands import receive, send, through
from tests.support.cluster import Cluster, Curl, curl, random_file
from tests.support.proxy import Proxy
from tests.support.wait import wait_until

ODD = ["emoji 😀", "new\nline", "n" * 255, "dots...", ".hidden", "-rf", "a'b\"c", "\udcff\udcfe"]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Make a directory with all that may be in one."""
    root = tmp_path / "tree"
    (root / "empty").mkdir(parents=True)
    (root / "deep" / "er").mkdir(parents=True)
    for name in ODD:
        random_file(root / name, 700)
    for size in (0, 1, 511, 512, 513, 1_000_000):
        random_file(root / "deep" / str(size), size)
    (root / "deep" / "er" / "link").symlink_to("../512")
    (root / "script").write_text("#!/bin/sh\n")
    (root / "script").chmod(0o750)
    (root / "deep").chmod(0o550)
    for number, path in enumerate([*root.rglob("*"), root]):
        os.utime(path, (1_500_000_000.25 + number, 1_500_000_000.25 + number), follow_symlinks=False)
    return root


def add_big(root: Path) -> None:
    """Add a large file. Its time is one that a floating-point number, which tarfile has for it, holds exactly."""
    random_file(root / "big", 40_000_000)
    for path in (root / "big", root):
        os.utime(path, (1_500_000_000.25, 1_500_000_000.25))


def seen(root: Path) -> dict[str, tuple[object, ...]]:
    """Return what is in a directory: names, types, modes, times to the microsecond, bytes and targets."""
    found = dict[str, tuple[object, ...]]()
    for path in [root, *root.rglob("*")]:
        about = path.lstat()
        content = str(path.readlink()) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        mode = 0 if path.is_symlink() else about.st_mode & 0o777 | (0o700 if path.is_dir() else 0)
        found[str(path.relative_to(root))] = (about.st_mode >> 12, mode, about.st_mtime_ns // 1000, content)
    return found


def unpack(pieces: Iterator[bytes], target: Path, etag: str) -> None:
    with Tree(target, etag) as tree:
        tree.unpack(pieces)


def test_any_offset_can_be_made_again(tree: Path) -> None:
    source = ArchiveSource([tree])
    whole = b"".join(source.pieces(0))
    assert len(whole) == source.length
    for offset in {*range(0, len(whole), 7919), 1, 511, 512, len(whole) - 1025, len(whole) - 1, len(whole)}:
        assert b"".join(source.pieces(offset)) == whole[offset:], offset


def test_a_directory_arrives_as_it_was(cluster: Cluster, tree: Path, inbox: Path) -> None:
    with send(cluster[0].url, tree) as sender:
        address = sender.address().replace(cluster[0].url, cluster[1].url)
        with receive(address, cwd=inbox) as receiver:
            assert receiver.finish() == 0, receiver.said
        assert sender.finish() == 0, sender.said
    assert seen(inbox / "tree") == seen(tree)
    assert [path.name for path in inbox.iterdir()] == ["tree"]


def test_several_files_arrive_in_one_directory(cluster: Cluster, tree: Path, inbox: Path) -> None:
    with send(cluster[0].url, tree / "script", tree / "deep", "--name", "some") as sender:
        with receive(sender.address(), cwd=inbox) as receiver:
            assert receiver.finish() == 0, receiver.said
        assert sender.finish() == 0, sender.said
    assert seen(inbox / "some" / "deep") == seen(tree / "deep")
    assert (inbox / "some" / "script").read_text() == "#!/bin/sh\n"


def test_curl_and_archive_get_a_tar(cluster: Cluster, tree: Path, inbox: Path) -> None:
    for is_curl in (True, False):
        with send(cluster[0].url, tree) as sender:
            if is_curl:
                assert curl("-fo", inbox / "tree.tar", sender.address()).returncode == 0
            else:
                with receive("--archive", sender.address(), cwd=inbox) as receiver:
                    assert receiver.finish() == 0, receiver.said
            assert sender.finish() == 0, sender.said
        with tarfile.open(inbox / "tree.tar") as tar:
            assert len(tar.getnames()) == len(seen(tree))
        (inbox / "tree.tar").unlink()


def test_a_directory_goes_on_after_breaks(cluster: Cluster, tree: Path, tmp_path: Path, inbox: Path) -> None:
    """On both sides, in turn."""
    add_big(tree)
    up, down = Proxy(cluster[0].port), Proxy(cluster[1].port)
    up.rate = down.rate = 30_000_000

    def size() -> int:
        return sum(path.stat().st_size for path in inbox.rglob("big"))

    try:
        with send(f"http://127.0.0.1:{up.port}", tree) as sender:
            address = through(down.port, sender.address())
            with receive(address, cwd=inbox) as receiver:
                for number, way in enumerate((up, down, up, down)):
                    wait_until(lambda most=number * 8_000_000: size() > most, "more")  # type: ignore[misc]
                    way.cut()
                assert receiver.finish() == 0, receiver.said
            assert sender.finish() == 0, sender.said
    finally:
        up.close()
        down.close()
    assert seen(inbox / "tree") == seen(tree)


def test_many_files_and_a_large_one_arrive_through_four_breaks(
    cluster: Cluster, tree: Path, tmp_path: Path, inbox: Path
) -> None:
    """500 small files beside the odd ones; with RELAY_TEST_FULL 10,000, and a large file of 2 GiB."""
    is_full = bool(os.environ.get("RELAY_TEST_FULL"))
    dice = random.Random(7)
    for number in range(10_000 if is_full else 500):
        folder = tree / f"folder {number % 20}"
        folder.mkdir(exist_ok=True)
        path = folder / f"{number} 😀{'x' * dice.randrange(200)}"
        path.write_bytes(dice.randbytes(dice.choice((0, 1, 512, 3000, 9000))))
        path.chmod(dice.choice((0o400, 0o644, 0o755)))
        os.utime(path, (dice.randrange(2**31), dice.randrange(2**31)))
    for folder in tree.glob("folder *"):
        os.utime(folder, (1.25, 1.25))
    large = 2 * 1024**3 if is_full else 40_000_000
    with (tree / "large").open("wb") as file:
        file.write(b"begin")
        file.truncate(large - 3)
        file.seek(0, os.SEEK_END)
        file.write(b"end")
    received = inbox / "tree"

    def share() -> float:
        """Return how much of the large file is there."""
        return sum(path.stat().st_size for path in inbox.rglob("large")) / large

    with contextlib.ExitStack() as stack:
        up, down = (stack.enter_context(contextlib.closing(Proxy(cluster[node].port))) for node in (0, 1))
        up.rate = down.rate = large
        sender = stack.enter_context(send(f"http://127.0.0.1:{up.port}", tree))
        address = through(down.port, sender.address())
        receiver = stack.enter_context(receive(address, cwd=inbox))
        for number, way in enumerate((up, down, up, down)):
            wait_until(lambda most=number / 8: share() > most, "more of it", 120)  # type: ignore[misc]
            way.cut()
        assert receiver.finish(600) == 0, receiver.said
        assert sender.finish() == 0, sender.said
        assert "reconnecting" in receiver.said
        assert "reconnecting" in sender.said
    assert filecmp.cmp(received / "large", tree / "large", shallow=False)
    (received / "large").unlink()
    (tree / "large").unlink()
    for root in (received, tree):
        os.utime(root, (1, 1))  # which the removal has changed
    assert seen(received) == seen(tree)


class Stopped(Exception):
    """Raised in the middle of a stream, as if the process was killed there."""


def test_unpacking_goes_on_wherever_it_was_stopped(tree: Path, inbox: Path) -> None:
    """In steps of odd lengths. Each run gets only what is missing, and the result is the same, to the last time."""
    source = ArchiveSource([tree])
    step, at, runs = 7_777, 0, 0

    def stream(start: int, end: int) -> Iterator[bytes]:
        for piece in source.pieces(start):
            left = end - start
            start += len(piece)
            if len(piece) >= left:
                yield piece[:left]
                raise Stopped
            yield piece

    assert source.length is not None
    target, end = inbox / "got", step
    while not target.exists():
        with Tree(target, '"tag"') as unpacked:
            assert max(at, end - 9 * step - 100_000) <= unpacked.size <= end, "what was unpacked is not lost"
            at = unpacked.size
            assert b"".join(unpacked.read()) == next(made_again(source, at))
            with contextlib.suppress(Stopped):
                unpacked.unpack(itertools.chain(unpacked.read(), stream(at, end)))
        end, runs = end + step * (1 if end < 60_000 else 9), runs + 1
    assert runs > source.length // (step * 9)
    assert seen(target) == seen(tree)
    assert [path.name for path in inbox.iterdir()] == ["got"]


def made_again(source: ArchiveSource, end: int) -> Iterator[bytes]:
    yield b"".join(source.pieces(0))[:end]


@pytest.mark.parametrize("harm", ["a torn line", "a file that is too short"])
def test_unpacking_starts_again_if_the_machine_has_crashed(tree: Path, inbox: Path, harm: str) -> None:
    source = ArchiveSource([tree])
    whole = b"".join(source.pieces(0))
    with Tree(inbox / "got", '"tag"') as unpacked, pytest.raises(Failure):
        unpacked.unpack(iter([whole[: len(whole) // 2], b""]))
    assert list(inbox.iterdir()) == [], "an archive that ends too early is refused"

    def stream() -> Iterator[bytes]:
        yield whole[: len(whole) // 2]
        raise Stopped

    with Tree(inbox / "got", '"tag"') as unpacked, pytest.raises(Stopped):
        unpacked.unpack(stream())
    (folder,) = inbox.iterdir()
    if harm == "a torn line":
        with (folder / "journal").open("ab") as journal:
            journal.write(b'["tree/x')
    else:
        (folder / "tree" / "tree" / "-rf").write_bytes(b"short")
    with Tree(inbox / "got", '"tag"') as unpacked:
        assert (unpacked.size > 0) is (harm == "a torn line")
        unpacked.unpack(itertools.chain(unpacked.read(), source.pieces(unpacked.size)))
    assert seen(inbox / "got") == seen(tree)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_receiver_that_unpacks_goes_on_after_it_was_stopped(
    cluster: Cluster, tree: Path, inbox: Path, how: signal.Signals
) -> None:
    """In the middle of a large file, among others."""
    add_big(tree)

    def size() -> int:
        return sum(path.stat().st_size for path in inbox.rglob("big"))

    with contextlib.closing(Proxy(cluster[0].port)) as proxy, send(cluster[1].url, tree) as sender:
        proxy.rate = 30_000_000
        address = through(proxy.port, sender.address())
        for most in (5_000_000, 15_000_000):
            with receive(address, cwd=inbox) as receiver:
                wait_until(lambda most=most: size() > most, "more")  # type: ignore[misc]
                receiver.process.send_signal(how)
                if how == signal.SIGKILL:
                    assert receiver.process.wait(30) == -signal.SIGKILL
                else:
                    assert receiver.finish() == 130
                    assert f"go on with: relay receive {address}" in receiver.said
            assert not (inbox / "tree").exists()
        with receive(address, cwd=inbox) as receiver:
            assert receiver.finish() == 0, receiver.said
        assert re.search(r"going on after [0-9.]{4} MB, which are here already", receiver.said), receiver.said
        assert "checksum compared" in receiver.said
        assert sender.finish() == 0, sender.said
    assert seen(inbox / "tree") == seen(tree)
    assert [path.name for path in inbox.iterdir()] == ["tree"]


def test_an_existing_directory_is_not_touched(cluster: Cluster, tree: Path, inbox: Path) -> None:
    (inbox / "tree").mkdir()
    with send(cluster[0].url, tree) as sender:
        with receive(sender.address(), cwd=inbox) as receiver:
            assert receiver.finish() == 5
            assert "exists already" in receiver.said
        with receive("-o", "other", sender.address(), cwd=inbox) as receiver:
            assert receiver.finish() == 0, receiver.said
        assert sender.finish() == 0, sender.said
    assert list((inbox / "tree").iterdir()) == []
    assert seen(inbox / "other") == seen(tree)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda tree: (tree / "out").symlink_to("../../x"), "leads out"),
        (lambda tree: (tree / "abs").symlink_to("/etc/passwd"), "leads out"),
        (lambda tree: os.mkfifo(tree / "fifo"), "no file, directory or link"),
    ],
)
def test_what_cannot_be_sent_is_said_before_anything_is(tree: Path, spoil: Callable[[Path], None], words: str) -> None:
    spoil(tree)
    with pytest.raises(Failure, match=words) as failed:
        ArchiveSource([tree])
    assert failed.value.status is Exit.LOCAL


def test_files_that_cannot_be_read_are_named_before_anything_is_sent(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them are looked for. Root may read everything, so this test tells its process otherwise."""
    secret = {str(tree / "deep" / name) for name in ("0", "1", "511", "512")}
    monkeypatch.setattr("os.access", lambda path, mode: str(path) not in secret)
    with pytest.raises(Failure, match=r"nothing was sent, because of .*deep/1: Permission denied.* and 1 more"):
        ArchiveSource([tree])


def test_a_file_that_changes_is_not_sent(tree: Path) -> None:
    source = ArchiveSource([tree])
    (tree / "deep" / "512").write_bytes(b"x" * 512)
    with pytest.raises(Failure, match="was changed"):
        b"".join(source.pieces(0))


def tar_of(*members: tuple[str, bytes, bytes | str]) -> bytes:
    """Return a tar of members: name, type, and content or the target of a link."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, kind, content in members:
            info = tarfile.TarInfo(name)
            info.type, info.mode = kind, 0o6777
            data = b""
            if isinstance(content, str):
                info.linkname = content
            else:
                data = content
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return made.getvalue()


TOP = ("t", tarfile.DIRTYPE, b"")


@pytest.mark.parametrize(
    "members",
    [
        [TOP, ("t/../../x", tarfile.REGTYPE, b"x")],
        [TOP, ("../x", tarfile.REGTYPE, b"x")],
        [TOP, ("/tmp/x", tarfile.REGTYPE, b"x")],
        [TOP, ("t/link", tarfile.SYMTYPE, "../../.."), ("t/link/x", tarfile.REGTYPE, b"x")],
        [TOP, ("t/link", tarfile.SYMTYPE, "/etc")],
        [TOP, ("t/hard", tarfile.LNKTYPE, "/etc/passwd")],
        [TOP, ("t/null", tarfile.CHRTYPE, b"")],
        [TOP, ("t/fifo", tarfile.FIFOTYPE, b"")],
        [TOP, ("t/a", tarfile.REGTYPE, b"x"), ("t/a", tarfile.REGTYPE, b"y")],
        [TOP, ("u", tarfile.DIRTYPE, b"")],
        [("t", tarfile.REGTYPE, b"x")],
        [("t", tarfile.SYMTYPE, "..")],
    ],
)
def test_a_hostile_archive_is_refused(inbox: Path, members: list[tuple[str, bytes, bytes | str]]) -> None:
    with pytest.raises(Failure) as failed:
        unpack(iter([tar_of(*members)]), inbox / "target", '"tag"')
    assert failed.value.status is Exit.CORRUPTED
    assert [path.name for path in inbox.parent.iterdir()] == ["inbox"]
    assert list(inbox.iterdir()) == []


@pytest.mark.parametrize("damage", [b"", b"x" * 5000, tar_of(TOP, ("t/a", tarfile.REGTYPE, b"x" * 5000))[:3000]])
def test_a_damaged_archive_is_refused(inbox: Path, damage: bytes) -> None:
    with pytest.raises(Failure) as failed:
        unpack(iter([damage]), inbox / "target", '"tag"')
    assert failed.value.status is Exit.CORRUPTED
    assert not (inbox / "target").exists()


def test_set_user_id_is_dropped(inbox: Path) -> None:
    unpack(iter([tar_of(TOP, ("t/a", tarfile.REGTYPE, b"x"))]), inbox / "target", '"tag"')
    assert (inbox / "target" / "a").stat().st_mode & 0o7022 == 0
    assert (inbox / "target").stat().st_mode & 0o7022 == 0


def test_any_uploader_may_say_that_a_tar_is_a_directory(cluster: Cluster, tmp_path: Path, inbox: Path) -> None:
    token, tar = cluster.token(), tmp_path / "x.tar"
    tar.write_bytes(tar_of(TOP, ("../x", tarfile.REGTYPE, b"x")))
    kind = f"Content-Type: {MEDIA_TYPE}"
    with (
        receive(cluster.url(1, token, "x.tar"), cwd=inbox) as receiver,
        Curl("-T", tar, "-H", kind, cluster.url(0, token, "x.tar")),
    ):
        assert receiver.finish(30) == 6, receiver.said
    assert not (inbox.parent / "x").exists()
