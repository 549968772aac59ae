"""Whole folders: one tar, made in the page, which `relay receive` unpacks and everybody else gets as NAME.tar."""

import base64
import contextlib
import io
import os
import subprocess
import tarfile
import unicodedata
from pathlib import Path

import psutil
import pytest
from playwright.sync_api import expect

from relay.client.archive import MEDIA_TYPE
from tests.client.commands import receive, send
from tests.page.conftest import LONG, MIB, Side, address_of
from tests.support.cluster import Cluster, curl

#: How many files the folder has: browsers list a dropped folder a hundred at a time. `RELAY_TEST_FULL=1` in the
#: environment makes it as large as some users' folders are.
COUNT = 10_000 if os.environ.get("RELAY_TEST_FULL") else 400
TIME = 1_500_000_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder with all that a browser finds in one: no links, and no empty folder if it is chosen."""
    root = tmp_path_factory.mktemp("page") / "Fotos öäü 🧀"
    deep = root / "d" / ("folder " + "n" * 90) / ("日" * 80)
    deep.mkdir(parents=True)
    for size in (0, 1, 511, 512, 513, 300_000):
        (deep / str(size)).write_bytes(os.urandom(size))
    (root / "many").mkdir()
    for number in range(COUNT):
        (root / "many" / f"{number}.txt").write_text(str(number))
    for name in (".hidden", "-rf", "a'b\"c", "x" * 255, "ü" * 127):
        (root / name).write_text(name)
    for path in root.rglob("*"):
        os.utime(path, (TIME, TIME))
    return root


def tree(root: Path) -> dict[str, tuple[bytes, int]]:
    """Return the bytes and times of all files below a folder."""
    files = {str(path.relative_to(root)): path for path in root.rglob("*") if path.is_file()}
    return {name: (path.read_bytes(), int(path.stat().st_mtime)) for name, path in files.items()}


def drop(side: Side, *paths: Path) -> None:
    """Drop files or folders on the page, as a person does who drags them there from another window."""
    session = side.context.new_cdp_session(side.page)
    data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        session.send("Input.dispatchDragEvent", {"type": kind, "x": 150, "y": 150, "data": data})


def fetch_tar(link: str, base: str) -> tarfile.TarFile:
    return tarfile.open(fileobj=io.BytesIO(curl("-f", address_of(link, base)).stdout))


def test_a_chosen_folder_is_unpacked_by_relay_receive(
    sides: tuple[Side, Side], node: Cluster, folder: Path, tmp_path: Path
) -> None:
    sender, receiver = sides
    link = sender.send(node[0].url, folder, "#folder")
    assert link.endswith(".tar")
    expect(sender.page.locator(".size")).to_contain_text(f"{len(tree(folder))} files")
    receiver.page.goto(link)
    expect(receiver.page.locator("#hint")).to_contain_text("folder")
    with receive(link, cwd=tmp_path) as command:
        assert command.finish() == 0, command.said
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]
    assert tree(tmp_path / folder.name) == tree(folder)
    sender.wait_state("delivered")


def test_dropped_folders_and_files_arrive_at_curl_and_tar(
    sides: tuple[Side, Side], node: Cluster, folder: Path, tmp_path: Path
) -> None:
    sender, _ = sides
    empty = tmp_path / "empty"
    (empty / "a" / "b").mkdir(parents=True)
    file = tmp_path / "x.txt"
    file.write_text("x")
    sender.page.goto(node[0].url)
    drop(sender, folder, empty, file)
    expect(sender.page.locator('.row[data-state="waiting"]')).to_have_count(3, timeout=LONG)
    links = [field.input_value() for field in sender.page.locator(".link").all()]
    one, nothing = (next(link for link in links if link.endswith(name)) for name in ("/x.txt", "/empty.tar"))
    (whole,) = {*links} - {one, nothing}
    assert curl("-f", address_of(one, node[0].url)).stdout == b"x"
    found = fetch_tar(nothing, node[0].url)
    assert [(each.name, each.isdir()) for each in found] == [("empty", True), ("empty/a", True), ("empty/a/b", True)]
    answer = curl("-f", "-D", "-", "-o", tmp_path / "got.tar", address_of(whole, node[0].url)).stdout.decode()
    assert f"content-type: {MEDIA_TYPE}\r\n" in answer.lower()
    subprocess.run(["tar", "-x", "-C", tmp_path, "-f", tmp_path / "got.tar"], check=True, timeout=60)
    assert tree(tmp_path / folder.name) == tree(folder)
    expect(sender.page.locator('.row[data-state="delivered"]')).to_have_count(3, timeout=LONG)


def test_no_name_leads_out_of_the_folder_and_every_size_fits(sides: tuple[Side, Side], node: Cluster) -> None:
    """No browser gives such paths, as far as is known. A header of 9 GiB is all that is needed of such a file."""
    sender, _ = sides
    hostile = [
        ["..", "..", "x"],
        ["..", "a"],
        ["/etc", "passwd"],
        [".", "y"],
        ["", "z"],
        ["t", "a\\..\\b"],
        ["t", "a\u202eb"],
    ]
    hostile += [["t", "same"], ["t", "same"], ["t", unicodedata.normalize("NFD", "ü")], ["t", "ü"], ["t", "\ud800"]]
    sender.page.goto(node[0].url)
    made = sender.page.evaluate(
        """async ([hostile, sizes]) => {
          const { laidOut } = await import("./page/folders.js");
          const { headersOf, tarOf } = await import("./page/tar.js");
          const file = new File(["abc"], "f", { lastModified: -5000 });
          const entries = laidOut(hostile.map((path) => [["top", ...path], file]));
          const headers = sizes.map((size) => headersOf("ö".repeat(140), "0", size, 8 ** 11 - 1));
          const tars = [tarOf(entries), ...headers.map((parts) => new Blob(parts))];
          const url = (tar) => new Promise((done) => {
            const reader = new FileReader();
            reader.onload = () => done(reader.result);
            reader.readAsDataURL(tar);
          });
          return Promise.all(tars.map(url));
        }""",
        [hostile, sizes := [0, 8**11 - 1, 8**11, 9 * 1024**3, 2**53 - 1]],
    )
    whole, *headers = [base64.b64decode(each.partition(",")[2]) for each in made]
    assert len(whole) % 512 == 0
    with tarfile.open(fileobj=io.BytesIO(whole)) as tar:
        names = tar.getnames()
        contents = [extracted.read() for each in tar if (extracted := tar.extractfile(each))]
    assert contents == [b"abc"] * len(hostile)
    assert len(names) == len(set(names))
    assert all({"", ".", ".."}.isdisjoint(name.split("/")) and "\\" not in name for name in names)
    assert {name.split("/")[0] for name in names} == {"top"}
    assert {"top/t/same", "top/t/same (2)", "top/t/ü", "top/t/ü (2)"} <= set(names)
    for size, header in zip(sizes, headers, strict=True):
        info = tarfile.TarInfo.frombuf(header[-512:], "utf-8", "strict")
        assert info.mtime == 8**11 - 1
        with tarfile.open(fileobj=io.BytesIO(header), mode="r:") as tar:
            member = tar.next()
            assert member is not None
            assert (member.size, member.name) == (size, "ö" * 140)


def test_a_file_of_a_folder_that_changes_ends_it(sides: tuple[Side, Side], node: Cluster, tmp_path: Path) -> None:
    sender, _ = sides
    root = tmp_path / "root"
    root.mkdir()
    with (root / "a").open("wb") as file:  # larger than the buffers on the way, which are filled at once
        file.truncate(64 * MIB)
    (root / "b").write_text("one")
    link = sender.send(node[0].url, root, "#folder")
    sender.wait_state("waiting")
    (root / "b").write_text("another")
    os.utime(root / "b", (TIME, TIME))
    assert curl("-f", address_of(link, node[0].url), "-o", tmp_path / "got").returncode != 0
    sender.wait_state("failed")
    expect(sender.page.locator(".words")).to_contain_text("“b” cannot be read any more")


@pytest.mark.skipif(not os.environ.get("RELAY_TEST_FULL"), reason="RELAY_TEST_FULL is not set: 9 GiB take a minute")
def test_a_folder_of_9_gib_takes_no_memory_of_the_browser(
    sides: tuple[Side, Side], node: Cluster, tmp_path: Path
) -> None:
    """A size over 8 GiB needs a pax header, and a browser that kept the tar in memory would show it."""
    sender, _ = sides
    root = tmp_path / "root"
    root.mkdir()
    with (root / "large").open("wb") as file:
        file.truncate(9 * 1024**3)
    (root / "small").write_text("small")
    link = sender.send(node[0].url, root, "#folder")
    sender.wait_state("waiting")
    before = most = _memory_of_browser()
    command = f"curl -fsS '{address_of(link, node[0].url)}' | tar -tv --utc"
    with subprocess.Popen(["bash", "-o", "pipefail", "-c", command], stdout=subprocess.PIPE, text=True) as listing:
        while listing.poll() is None:
            most = max(most, _memory_of_browser())
            sender.page.wait_for_timeout(500)
        assert listing.stdout is not None
        listed = [line.split() for line in listing.stdout.read().splitlines()]
        assert listing.returncode == 0
    assert [(each[2], each[-1]) for each in listed] == [
        ("0", "root/"),
        (str(9 * 1024**3), "root/large"),
        ("5", "root/small"),
    ]
    sender.wait_state("delivered")
    print(f"memory of the browser: {before / 1e6:.0f} MB before, {most / 1e6:.0f} MB at most")
    assert most - before < 300e6


def _memory_of_browser() -> int:
    """Return the bytes of memory that the processes of this test's Chromium do not share."""
    total = 0
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if "chrom" in process.name():
                total += process.memory_full_info().uss
    return total


def test_a_folder_from_relay_send_arrives_in_the_browser(
    sides: tuple[Side, Side], node: Cluster, folder: Path, tmp_path: Path
) -> None:
    _, receiver = sides
    with send(node[0].url, folder) as command:
        link = command.address().replace(node[0].url, f"{node[0].url}/receive#", 1).replace("receive#/", "receive#")
        got = receiver.receive(link)
        expect(receiver.page.locator('#file[data-state="whole"]')).to_be_visible()
        assert command.finish() == 0, command.said
    with tarfile.open(got) as tar:
        tar.extractall(tmp_path / "out", filter="data")
    assert tree(tmp_path / "out" / folder.name) == tree(folder)
