"""What a person meets on the two pages: hostile names, wrong links, texts, secrets, and the keyboard alone."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, FileChooser, expect

from tests.page.conftest import Side, address_of
from tests.support.cluster import Cluster, alone, curl

#: A name that runs a script if it is taken for HTML; and what the page makes of its slash.
HOSTILE = "<img src=x onerror=alert(1)>\"'&$(id)`id`.svg"
SECRET, ADMIN = "the-senders-secret", "the-operators-secret"


@pytest.fixture(scope="module")
def closed(browser: Browser) -> Iterator[Cluster]:
    with alone("closed", token_secret=SECRET, admin_secret=ADMIN, status="private") as cluster:
        yield cluster


def test_a_hostile_name_is_shown_as_text_on_both_sides(sides: tuple[Side, Side], node: Cluster, tmp_path: Path) -> None:
    sender, receiver = sides
    file = tmp_path / HOSTILE
    file.write_text("<script>alert(2)</script>")
    link = sender.send(node[0].url, file)
    assert sender.page.locator(".name").inner_text() == HOSTILE
    receiver.page.goto(link)
    expect(receiver.page.locator("#name")).to_have_text(HOSTILE)
    assert receiver.receive(link).read_text() == file.read_text()
    sender.wait_state("delivered")
    assert sender.complaints == receiver.complaints == []


def test_the_line_for_a_terminal_works_as_it_is(sides: tuple[Side, Side], node: Cluster, tmp_path: Path) -> None:
    """A shell must not run what is in a name."""
    sender, _ = sides
    (tmp_path / "there").mkdir()
    file = tmp_path / HOSTILE
    file.write_text("content")
    sender.send(node[0].url, file)
    command = sender.page.locator(".command").text_content()
    assert command is not None
    subprocess.run(["sh", "-c", command], cwd=tmp_path / "there", check=True, capture_output=True, timeout=60)
    assert [each.name for each in (tmp_path / "there").iterdir()] == [HOSTILE]
    sender.wait_state("delivered")


def test_a_text_is_shown_with_a_button_to_copy_it(sides: tuple[Side, Side], node: Cluster) -> None:
    sender, receiver = sides
    words = "<script>alert(1)</script>\nkäse 🧀"
    sender.page.goto(node[0].url)
    sender.page.click("#write")
    sender.page.fill("#text", words)
    sender.page.click("#text-form button")
    receiver.page.goto(sender.link())
    assert not receiver.page.locator("#received").is_visible()
    receiver.page.get_by_role("button", name="Show the text").click()
    receiver.page.locator("#received").wait_for(state="visible")
    assert receiver.page.locator("#text").text_content() == words
    receiver.context.grant_permissions(["clipboard-read", "clipboard-write"])
    receiver.page.click("#copy")
    expect(receiver.page.locator("#copy")).to_have_text("Copied")
    assert receiver.page.evaluate("() => navigator.clipboard.readText()") == words
    sender.wait_state("delivered")


def test_opening_a_link_takes_nothing(sides: tuple[Side, Side], node: Cluster, tmp_path: Path) -> None:
    """A program that fetches the link to show a preview gets the page, and a browser only asks."""
    sender, receiver = sides
    file = tmp_path / "x"
    file.write_bytes(b"abc")
    link = sender.send(node[0].url, file)
    assert curl("-fL", "-H", "Accept: text/html", link).returncode == 0
    for _ in range(2):
        receiver.page.goto(link)
        receiver.page.reload()
        receiver.page.locator('#file[data-state="ready"]').wait_for()
    assert set(receiver.requests) == {"GET", "HEAD"}
    assert sender.page.locator('.row[data-state="waiting"]').count() == 1
    assert curl("-f", address_of(link, node[0].url)).stdout == b"abc"
    sender.wait_state("delivered")


def test_links_that_do_not_work_say_so(sides: tuple[Side, Side], node: Cluster, tmp_path: Path) -> None:
    _, receiver = sides
    token = node.token()
    send = httpx.post(node.url(0, token, "x") + "/link?for=send").text.strip()
    right = httpx.post(node.url(0, token, "x") + "/link").text.strip()
    for fragment, words in {
        "": "not a complete link",
        f"#{right[:-1]}/x": "not a complete link",
        f"#{right}/y": "does not work",
        f"#{'A' * 8}r{'0' * 32}/x": "does not work",
        f"#{send}/x": "for sending",
        f"#{right}/x": "not there yet",
    }.items():
        receiver.page.goto(f"{node[0].url}/receive{fragment}")
        receiver.page.reload()
        expect(receiver.page.locator("#state")).to_contain_text(words)
        assert not receiver.page.locator("#download").is_visible()
    httpx.delete(node.url(0, token))
    expect(receiver.page.locator("#state")).to_contain_text("does not work", timeout=40_000)


def test_a_used_link_says_so(sides: tuple[Side, Side], node: Cluster, tmp_path: Path) -> None:
    sender, receiver = sides
    file = tmp_path / "x"
    file.write_bytes(b"abc")
    link = sender.send(node[0].url, file)
    receiver.page.goto(link)
    receiver.page.locator('#file[data-state="ready"]').wait_for()
    assert curl("-f", address_of(link, node[0].url)).stdout == b"abc"
    expect(receiver.page.locator("#state")).to_contain_text("not there any more")


def test_several_files_have_a_row_each_and_names_do_not_clash(
    sides: tuple[Side, Side], node: Cluster, tmp_path: Path
) -> None:
    sender, _ = sides
    for folder in "abcd":
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.txt").write_text(folder)
    sender.page.goto(node[0].url)
    sender.page.set_input_files("#files", [tmp_path / folder / "x.txt" for folder in "abcd"])
    expect(sender.page.locator('.row[data-state="waiting"]')).to_have_count(3)
    expect(sender.page.locator('.row[data-state="queued"]')).to_have_count(1)
    names = sender.page.locator(".name").all_inner_texts()
    assert names == ["x (4).txt", "x (3).txt", "x (2).txt", "x.txt"]
    for row, content in ((3, b"a"), (2, b"b"), (1, b"c"), (0, b"d")):
        field = sender.page.locator(".row").nth(row).locator(".link")
        field.wait_for(state="visible")
        assert curl("-f", address_of(field.input_value(), node[0].url)).stdout == content
    expect(sender.page.locator('.row[data-state="delivered"]')).to_have_count(4)


def test_an_empty_file_arrives(sides: tuple[Side, Side], node: Cluster, tmp_path: Path) -> None:
    sender, receiver = sides
    file = tmp_path / "empty"
    file.touch()
    assert receiver.receive(sender.send(node[0].url, file)).read_bytes() == b""
    sender.wait_state("delivered")


def test_cancelling_ends_the_receivers_wait(sides: tuple[Side, Side], node: Cluster, tmp_path: Path) -> None:
    sender, receiver = sides
    file = tmp_path / "x"
    file.write_bytes(b"abc")
    link = sender.send(node[0].url, file)
    receiver.page.goto(link)
    receiver.page.locator('#file[data-state="ready"]').wait_for()
    sender.page.click(".cancel")
    expect(receiver.page.locator("#state")).to_contain_text("not there any more")
    sender.page.click(".again")
    receiver.page.locator('#file[data-state="ready"]').wait_for()
    assert receiver.receive(link).read_bytes() == b"abc"
    sender.wait_state("delivered")


def test_the_secret_is_asked_for_once_and_no_tables_are_shown(
    sides: tuple[Side, Side], closed: Cluster, tmp_path: Path
) -> None:
    sender, _ = sides
    file = tmp_path / "x"
    file.write_bytes(b"abc")
    sender.page.goto(closed[0].url)
    assert sender.page.locator("#status").count() == 0
    sender.page.set_input_files("#files", file)
    for secret in ("nonsense", SECRET):
        sender.page.locator("#secret-form").wait_for(state="visible")
        sender.page.fill("#secret", secret)
        sender.page.keyboard.press("Enter")
    assert curl("-f", address_of(sender.link(), closed[0].url)).stdout == b"abc"
    sender.wait_state("delivered")
    link = sender.send(closed[0].url, file)
    assert not sender.page.locator("#secret-form").is_visible()
    assert curl("-f", address_of(link, closed[0].url)).stdout == b"abc"


def test_a_file_that_is_cancelled_before_the_secret_is_given_is_not_sent(
    sides: tuple[Side, Side], closed: Cluster
) -> None:
    sender, _ = sides
    sender.page.goto(closed[0].url)
    sender.page.set_input_files("#files", {"name": "x", "mimeType": "", "buffer": b"abc"})
    sender.page.locator("#secret-form").wait_for(state="visible")
    sender.page.click(".cancel")
    sender.page.fill("#secret", SECRET)
    sender.page.keyboard.press("Enter")
    sender.page.set_input_files("#files", {"name": "y", "mimeType": "", "buffer": b"abc"})
    sender.wait_state("waiting")
    assert sender.page.locator('.row[data-state="cancelled"]').count() == 1
    assert sender.requests.count("PUT") == 1


def test_all_of_it_works_with_the_keyboard_alone(sides: tuple[Side, Side], node: Cluster) -> None:
    sender, receiver = sides
    sender.page.goto(node[0].url)
    press = sender.page.keyboard.press

    def tab_to(side: Side, selector: str) -> None:
        for _ in range(20):
            if side.page.locator(f"{selector}:focus").count():
                return
            side.page.keyboard.press("Tab")
        raise AssertionError(f"{selector} cannot be reached")

    tab_to(sender, "#choose")
    choosers: list[FileChooser] = []
    sender.page.on("filechooser", lambda chooser: choosers.append(chooser))  # noqa: PLW0108 (playwright marks it)
    for _ in range(20):  # on a busy machine Chromium may let a key press pass that comes before it has painted
        press("Enter")
        sender.page.wait_for_timeout(500)
        if choosers:
            break
    choosers[0].set_files({"name": "x", "mimeType": "", "buffer": b"abc"})
    link = sender.link()
    tab_to(sender, "#choose-folder")
    tab_to(sender, "#write")
    press("Enter")
    sender.page.keyboard.type("hello")
    tab_to(sender, "#text-form button")
    press("Enter")
    expect(sender.page.locator(".row")).to_have_count(2)
    tab_to(sender, ".row .copy")
    tab_to(sender, ".row .qr summary")
    press("Enter")
    sender.page.get_by_role("img", name="QR code of the link to").first.wait_for()
    receiver.page.goto(link)
    receiver.page.locator("#download").wait_for(state="visible")
    tab_to(receiver, "#download")
    with receiver.page.expect_download() as download:
        receiver.page.keyboard.press("Enter")
    assert Path(download.value.path()).read_bytes() == b"abc"
    tab_to(sender, ".row .cancel")
    press("Enter")
    sender.wait_state("cancelled")


def test_leaving_asks_while_a_file_may_still_be_taken(sides: tuple[Side, Side], node: Cluster) -> None:
    sender, _ = sides
    asked: list[str] = []
    sender.page.on("dialog", lambda dialog: asked.append(dialog.type))
    sender.page.goto(node[0].url)
    sender.page.click("#choose", trial=True)
    sender.page.set_input_files("#files", {"name": "x", "mimeType": "", "buffer": b"abc"})
    sender.link()
    sender.page.locator("#write").click()  # browsers ask only those who have used the page
    sender.page.goto(node[0].url + "/status")
    assert asked == ["beforeunload"]
