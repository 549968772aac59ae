"""What the sending page does around a transfer: clipboard, sharing, QR code; what time and plain HTTP take away."""

import re
from pathlib import Path

import httpx
import segno
from playwright.sync_api import FilePayload, expect

from tests.page.conftest import MIB, Side, address_of
from tests.support.cluster import Cluster, Curl, curl, random_file
from tests.support.proxy import Proxy

#: Stands in for what this browser has not, and records what the page makes of it.
RECORDER = """
  window.shared = []; window.locks = [];
  navigator.share = async (data) => { window.shared.push(data.url); };
  navigator.wakeLock.request = async (kind) => {
    window.locks.push(kind);
    return { released: false, async release() { this.released = true; window.locks.push("released"); } };
  };
"""
ABC: FilePayload = {"name": "x", "mimeType": "", "buffer": b"abc"}


def pasted(side: Side) -> str:
    """Return what is in the clipboard, by pasting it into the field for texts."""
    if not side.page.locator("#text").is_visible():
        side.page.click("#write")
    side.page.fill("#text", "")
    side.page.locator("#text").press("Control+v")
    return side.page.locator("#text").input_value()


def test_the_link_and_the_line_for_a_terminal_are_copied_and_shared(sides: tuple[Side, Side], node: Cluster) -> None:
    sender, _ = sides
    sender.page.add_init_script(RECORDER)
    sender.context.grant_permissions(["clipboard-read", "clipboard-write"])
    sender.page.goto(node[0].url)
    sender.page.set_input_files("#files", ABC)
    link = sender.link()
    sender.page.click(".copy")
    expect(sender.page.locator("#announced")).to_have_text("Copied")
    assert pasted(sender) == link
    sender.page.get_by_text("Receive it in a terminal").click()
    sender.page.click(".copy-command")
    assert pasted(sender) == sender.page.locator(".command").text_content()
    sender.page.get_by_role("button", name="Share the link to x").click()
    assert sender.page.evaluate("() => window.shared") == [link]


def test_the_qr_code_is_that_of_the_link(sides: tuple[Side, Side], node: Cluster) -> None:
    sender, _ = sides
    sender.page.goto(node[0].url)
    sender.page.set_input_files("#files", ABC)
    link = sender.link()
    assert "?qr=" not in "".join(sender.addresses)
    summary = sender.page.locator(".qr summary")
    summary.focus()
    sender.page.keyboard.press("Enter")
    code = sender.page.get_by_role("img", name="QR code of the link to x")
    code.wait_for()
    side = int(str(code.get_attribute("viewBox")).split()[2])
    modules = [[0] * side for _ in range(side)]
    path = str(code.locator("path").get_attribute("d"))
    for x, y, length in (map(int, run) for run in re.findall(r"M(\d+) (\d+)h(\d+)v1h-\3z", path)):
        modules[y][x : x + length] = [1] * length
    expected = segno.make_qr(link, error="l")
    assert modules == [list(row) for row in expected.matrix_iter(border=4)]
    # The next one asks a relay that has gone.
    sender.page.set_input_files("#files", {"name": "y" * 250, "mimeType": "", "buffer": b"abc"})
    expect(sender.page.locator('.row[data-state="waiting"]')).to_have_count(2)
    sender.context.set_offline(True)
    sender.page.locator(".qr summary").first.click()
    expect(sender.page.locator(".code").first).to_have_text("There is no QR code. The relay does not answer.")
    sender.context.set_offline(False)


def test_files_and_texts_are_pasted(sides: tuple[Side, Side], node: Cluster) -> None:
    sender, _ = sides
    sender.context.grant_permissions(["clipboard-read", "clipboard-write"])
    sender.page.goto(node[0].url)
    sender.page.evaluate("() => navigator.clipboard.writeText('some words')")
    sender.page.keyboard.press("Control+v")
    expect(sender.page.locator("#text")).to_have_value("some words")
    sender.page.evaluate(
        """() => {
          const clipboardData = new DataTransfer();
          clipboardData.items.add(new File(["picture"], "image.png", { type: "image/png" }));
          document.body.dispatchEvent(new ClipboardEvent("paste", { clipboardData, bubbles: true, cancelable: true }));
        }"""
    )
    assert curl("-f", address_of(sender.link(), node[0].url)).stdout == b"picture"


def test_the_machine_stays_awake_and_the_title_counts_while_bytes_flow(
    sides: tuple[Side, Side], node: Cluster, tmp_path: Path
) -> None:
    sender, _ = sides
    sender.page.add_init_script(RECORDER)
    line = Proxy(node[0].port)
    line.rate = 8 * MIB
    link = sender.send(f"http://127.0.0.1:{line.port}", random_file(tmp_path / "file", 24 * MIB))
    sender.wait_state("waiting")
    expect(sender.page).to_have_title("Waiting – relay")
    assert sender.page.evaluate("() => window.locks") == []
    with Curl("-f", "-o", "/dev/null", address_of(link, node[0].url)) as download:
        expect(sender.page).to_have_title(re.compile(r"^[1-9][0-9]?% sent – relay$"))
        assert sender.page.evaluate("() => window.locks") == ["screen"]
        assert download.finish() == (0, b"")
    sender.wait_state("delivered")
    expect(sender.page).to_have_title("Delivered – relay")
    assert sender.page.evaluate("() => window.locks") == ["screen", "released"]
    line.close()


def test_a_page_that_was_left_open_gets_a_new_token(sides: tuple[Side, Side], node: Cluster) -> None:
    sender, _ = sides
    sender.page.goto(node[0].url)
    sender.page.set_input_files("#files", ABC)
    old = sender.link()
    sender.wait_state("waiting")
    token = next(re.findall(r"/([A-Za-z0-9]{30})/x", address)[0] for address in sender.addresses if "/x" in address)
    assert httpx.delete(node.url(0, token)).status_code == 204
    sender.wait_state("failed")
    expect(sender.page.locator(".words")).to_contain_text("The link has expired.")
    sender.page.set_input_files("#files", {"name": "y", "mimeType": "", "buffer": b"abc"})
    expect(sender.page.locator('.row[data-state="waiting"]')).to_have_count(1)
    sender.page.click(".again:not([hidden])")
    expect(sender.page.locator('.row[data-state="waiting"]')).to_have_count(2)
    links = [field.input_value() for field in sender.page.locator(".link").all()]
    assert old not in links
    assert [curl("-f", address_of(link, node[0].url)).stdout for link in links] == [b"abc", b"abc"]


def test_over_plain_http_it_works_and_says_what_is_missing(sides: tuple[Side, Side], node: Cluster) -> None:
    sender, receiver = sides
    url = f"http://relay.test:{node[0].port}"
    sender.page.goto(url)
    assert sender.page.evaluate("() => isSecureContext") is False
    expect(sender.page.get_by_text("This page came over plain HTTP.")).to_be_visible()
    sender.page.set_input_files("#files", ABC)
    link = sender.link()
    assert link.startswith(url)
    assert not sender.page.locator(".native").is_visible()
    sender.page.click(".copy")
    expect(sender.page.locator(".copy")).to_have_text("Copied")
    assert pasted(sender) == link
    assert receiver.receive(link).read_bytes() == b"abc"
    expect(receiver.page.get_by_text("This page came over plain HTTP.")).to_be_visible()
    sender.wait_state("delivered")
    assert sender.complaints == receiver.complaints == []
    sender.page.goto(node[0].url)
    assert not sender.page.get_by_text("This page came over plain HTTP.").is_visible()
