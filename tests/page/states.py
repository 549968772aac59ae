"""Every state of the pages, one after another, with real transfers behind them."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import httpx
from playwright.sync_api import Browser

from tests.client.commands import send
from tests.page.conftest import MIB, Side, address_of
from tests.support.cluster import Cluster, Curl, curl
from tests.support.wait import wait_until

#: Names that break layouts: of the most bytes, without a place to break a line, from right to left, and with emoji.
LONGEST = "Recording of the meeting about everything that was left open last time, with all of the questions " * 3
LONGEST = LONGEST[:251] + ".m4a"
UNBROKEN = "x" * 251 + ".bin"
ARABIC = "تقرير المبيعات السنوي 2026.pdf"
EMOJI = "🏖️ holiday 👩‍👩‍👧‍👦.jpg"
#: Bytes of a file that is still on its way while the page is looked at, and how many a second its receiver takes.
BIG, RATE = 400 * MIB, 2 * MIB
WORDS = "The door code is 4711.\n\nThe plants need water every second day:\n  - the fern\n  - the lemon tree\n"


def sparse(path: Path, size: int) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
    return path


def sending(browser: Browser, node: Cluster, closed: Cluster, folder: Path) -> Iterator[tuple[str, Side]]:
    """Yield the name of each state of the page that sends, and the page in it."""
    side = Side(browser)
    page = side.page
    page.goto(closed[0].url)
    page.set_input_files("#files", sparse(folder / "report.pdf", 1000))
    page.locator("#secret-form").wait_for(state="visible")
    page.fill("#secret", "nonsense")
    page.keyboard.press("Enter")
    page.get_by_text("not accepted").wait_for()
    yield "send-secret", side

    page.goto(node[0].url)
    yield "send-empty", side
    page.evaluate("() => document.getElementById('drop').classList.add('over')")
    yield "send-dragging", side
    page.evaluate("() => document.getElementById('drop').classList.remove('over')")
    page.click("#write")
    page.fill("#text", WORDS)
    yield "send-writing", side
    page.click("#write")

    with contextlib.ExitStack() as stack:
        _fill_queue(side, node, folder, stack)
        yield "send-queue", side
        page.locator("summary").locator("visible=true").first.click()
        yield "send-terminal", side
        page.locator(".qr summary").locator("visible=true").first.click()
        page.locator(".code svg").first.wait_for()
        yield "send-qr", side
        side.context.set_offline(True)
        page.get_by_text("You are offline").first.wait_for()
        yield "send-offline", side
        side.context.set_offline(False)
    side.context.close()


def _fill_queue(side: Side, node: Cluster, folder: Path, stack: contextlib.ExitStack) -> None:
    """Add a row in each of its states."""

    def add(name: str, size: int) -> str:
        count = side.page.locator(".row").count()
        side.page.set_input_files("#files", sparse(folder / name, size))
        wait_until(lambda: side.page.locator(".row").count() == count + 1, "the row")
        return side.link()

    def receive(link: str) -> Curl:
        command = ("-f", "--limit-rate", str(RATE), "-o", "/dev/null", address_of(link, node[0].url))
        download = stack.enter_context(Curl(*command))
        side.page.locator(".row").first.locator('progress:not([value="0"])').wait_for(state="attached")
        return download

    assert curl("-f", address_of(add("minutes.pdf", 340_000), node[0].url)).returncode == 0
    side.wait_state("delivered")
    add(ARABIC, 2_000_000)
    uploads = [address for address in side.addresses if quote(ARABIC) in address and not address.endswith("/link")]
    httpx.delete(uploads[0])
    side.wait_state("failed")
    add(EMOJI, 4_100_000)
    side.page.locator(".cancel").first.click()
    side.wait_state("cancelled")
    receive(add("film.mkv", BIG))
    receive(add(LONGEST, BIG)).process.kill()
    side.wait_state("paused")
    add("photo.jpg", 2_300_000)
    side.page.set_input_files("#files", sparse(folder / UNBROKEN, 7_000_000))
    side.wait_state("queued")


def receiving(browser: Browser, node: Cluster, folder: Path) -> Iterator[tuple[str, Side]]:
    """Yield the name of each state of the page that receives, and the page in it."""
    side = Side(browser)
    token = node.token()
    yield from _before(side, node, token, folder)
    yield from _meanwhile(side, node, token, folder)
    # An upload that is not resumable has no ETag, so nobody can tell how it ended.
    with send(node[0].url, sparse(folder / "minutes.pdf", 340_000)) as command:
        link = command.address().removeprefix(node[0].url + "/")
        side.page.goto(f"{node[0].url}/receive#{link}")
        side.page.locator('#file[data-state="ready"]').wait_for()
        side.page.click("#download")
        side.page.locator('#file[data-state="whole"]').wait_for()
        yield "receive-whole", side
    side.context.set_offline(True)
    side.page.evaluate("() => { location.hash = location.hash.replace('minutes', 'report') }")
    side.page.get_by_text("does not answer").wait_for()
    yield "receive-no-answer", side
    side.context.close()


def _open(side: Side, node: Cluster, token: str, name: str, state: str, suffix: str = "") -> None:
    """Open a link for a name, and wait for the page's state."""
    link = httpx.post(node.url(0, token, quote(name)) + "/link").text.strip()
    side.page.goto("about:blank")
    side.page.goto(f"{node[0].url}/receive#{link}/{quote(name)}{suffix}")
    side.page.locator(f'#file[data-state="{state}"]').wait_for()


def _before(side: Side, node: Cluster, token: str, folder: Path) -> Iterator[tuple[str, Side]]:
    _open(side, node, token, "minutes.pdf", "absent")
    yield "receive-absent", side
    side.page.goto(f"{node[0].url}/receive#nothing")
    side.page.get_by_text("not a complete link").wait_for()
    yield "receive-wrong", side
    (folder / "text").write_text(WORDS)
    with Curl("-H", "Content-Type: text/plain", "-T", folder / "text", node.url(0, token, "text.txt")):
        _open(side, node, token, "text.txt", "ready", "&text")
        yield "receive-text-ready", side
        side.page.click("#show")
        side.page.locator("#received").wait_for(state="visible")
        yield "receive-text", side


def _meanwhile(side: Side, node: Cluster, token: str, folder: Path) -> Iterator[tuple[str, Side]]:
    page, big = side.page, sparse(folder / "big", BIG)
    with Curl("--limit-rate", str(RATE), "-T", big, node.url(0, token, quote(LONGEST))):
        _open(side, node, token, LONGEST, "ready")
        yield "receive-ready", side
        with page.expect_download() as download:
            page.click("#download")
        page.locator("#speed:not(:empty)").wait_for()
        yield "receive-receiving", side
        download.value.cancel()
        page.locator('#file[data-state="stopped"]').wait_for()
        yield "receive-stopped", side
    address = node.url(0, token, "film.mkv")
    with Curl("-T", big, address), Curl("--limit-rate", str(RATE), "-o", "/dev/null", address + "?wait=30"):
        _open(side, node, token, "film.mkv", "taken")
        yield "receive-taken", side
        httpx.delete(address)
        page.locator('#file[data-state="over"]').wait_for()
        yield "receive-over", side


def watching(browser: Browser, node: Cluster, folder: Path, secret: str) -> Iterator[tuple[str, Side]]:
    """Yield the name of each state of the status page, and the page in it."""
    side = Side(browser, http_credentials={"username": "", "password": secret})
    side.page.goto(node[0].url + "/status")
    yield "status-empty", side
    token = node.token()
    with contextlib.ExitStack() as stack:
        for name, is_received in (("film.mkv", True), (LONGEST, True), (ARABIC, False), (EMOJI, False)):
            address = node.url(0, token, quote(name))
            stack.enter_context(Curl("--limit-rate", str(RATE), "-T", sparse(folder / "big", BIG), address))
            if is_received:
                stack.enter_context(Curl("-f", "-o", "/dev/null", address + "?wait=30"))
        node.wait_state(token, "streaming", 2)
        node.wait_state(token, "waiting", 2)
        for path, name in (("/status", "status-busy"), ("/status?admin", "status-admin"), ("/", "home-busy")):
            side.page.goto(node[0].url + path)
            side.page.locator("td .waiting").nth(1).wait_for(state="attached")
            yield name, side
        side.page.route("**/status", lambda route: route.fulfill(status=503, body="down"))
        side.page.locator("#stale").wait_for(state="visible")
        yield "home-stale", side
    side.context.close()
