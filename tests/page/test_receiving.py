"""What the receiving page says after its button was pressed: how far the file is, and how it ended."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Download, Page, expect

from tests.page.conftest import MIB, Side, address_of, digest
from tests.support.cluster import Cluster, Curl, random_file
from tests.support.proxy import Proxy

#: Bytes of a file, and bytes a second that its sender may send: enough for a person to see it move.
SIZE, RATE = 32 * MIB, 8 * MIB


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_file(tmp_path_factory.mktemp("page") / "a file.bin", SIZE)


@pytest.fixture
def proxy(node: Cluster) -> Iterator[Proxy]:
    """Yield the sender's line to the node."""
    proxy = Proxy(node[0].port)
    proxy.rate = RATE
    yield proxy
    proxy.close()


def send(sender: Side, proxy: Proxy, node: Cluster, file: Path) -> str:
    """Send the file through the line, and return a link that does without it."""
    return sender.send(f"http://127.0.0.1:{proxy.port}", file).replace(f":{proxy.port}/", f":{node[0].port}/")


def wait_state(page: Page, state: str) -> None:
    page.locator(f'#file[data-state="{state}"]').wait_for()


def press(page: Page) -> Download:
    """Start the download, and wait until the page says that bytes arrive."""
    with page.expect_download() as saved:
        page.locator("#download").click()
    wait_state(page, "receiving")
    return saved.value


def test_the_page_shows_what_arrives_and_that_it_is_whole(
    sides: tuple[Side, Side], node: Cluster, proxy: Proxy, file: Path
) -> None:
    sender, receiver = sides
    page = receiver.page
    page.goto(send(sender, proxy, node, file))
    page.locator("#download").wait_for()
    saved = press(page)
    page.locator('#bar:not([value="0"])').wait_for()
    assert 0 < float(page.locator("#bar").get_attribute("value") or 0) < 1
    expect(page.locator("#far")).to_have_text(re.compile(r"^[\d.]+ MB of 33.6 MB$"))
    expect(page.locator("#speed")).to_have_text(re.compile(r"^[\d.]+ [kM]B/s, [\d]+ (sec|min|hr) left$"))
    expect(page).to_have_title(re.compile(r"^\d+% received – relay$"))
    assert not page.locator("#download").is_visible()
    proxy.refuses = True
    proxy.cut()
    wait_state(page, "paused")
    expect(page.locator("#state")).to_have_text("Interrupted: waiting for the sender.")
    expect(page.locator("#speed")).to_be_empty()
    sender.wait_state("reconnecting")
    proxy.refuses = False
    wait_state(page, "whole")
    expect(page.locator("#state")).to_have_text("Delivered: all of it has arrived.")
    expect(page).to_have_title("Received: a file.bin – relay")
    assert digest(Path(saved.path())) == digest(file)
    sender.wait_state("delivered")


def test_the_page_says_what_did_not_arrive_and_offers_it_again(
    sides: tuple[Side, Side], node: Cluster, proxy: Proxy, file: Path
) -> None:
    sender, receiver = sides
    page = receiver.page
    page.goto(send(sender, proxy, node, file))
    page.locator("#download").wait_for()
    press(page).cancel()
    wait_state(page, "stopped")
    sender.wait_state("paused")
    expect(page.locator("#download")).to_have_text("Start the download again")
    press(page)
    sender.page.click(".cancel")
    expect(page.locator("#state")).to_have_text("It did not arrive whole: it was cancelled.")
    assert not page.locator("#download").is_visible()
    sender.page.click(".again")
    wait_state(page, "ready")


def test_the_page_says_that_somebody_else_has_taken_it(
    sides: tuple[Side, Side], node: Cluster, proxy: Proxy, file: Path
) -> None:
    sender, receiver = sides
    page = receiver.page
    link = send(sender, proxy, node, file)
    page.goto(link)
    page.locator("#download").wait_for()
    with Curl("-f", "-o", "/dev/null", address_of(link, node[0].url)) as download:
        wait_state(page, "taken")
        assert not page.locator("#download").is_visible()
        assert download.finish() == (0, b"")
    expect(page.locator("#state")).to_have_text("It has been received.")
    assert set(receiver.requests) == {"GET", "HEAD"}
