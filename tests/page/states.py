"""Every state of the pages, one after another, with real transfers behind them."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import redis
from playwright.sync_api import Browser

from relay.cluster.progress import Progress
from relay.states import State
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
    """Yield the name of each state of the status page, and the page in it. `node` has a Redis of its own."""
    assert node.redis is not None
    side = Side(browser, http_credentials={"username": "", "password": secret})
    page = side.page
    page.goto(node[0].url + "/status")
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
        for path, name in (("/status", "status-busy"), ("/", "home-busy"), ("/status?admin", "status-admin")):
            page.goto(node[0].url + path)
            page.locator("td .waiting").nth(1).wait_for(state="attached")
            page.get_by_text("MiB/s").nth(1).wait_for(state="attached")  # rates are known
            yield name, side
        yield from _asked(side)
        page.goto(node[0].url)
        page.route("**/status", lambda route: route.fulfill(status=503, body="down"))
        page.locator("#stale").wait_for(state="visible")
        yield "home-stale", side
        page.unroute("**/status")
    _pretend(node.redis, node.prefix)
    node.redis.config_set("maxmemory-policy", "allkeys-lru")
    node.redis.config_set("maxmemory", int(node.redis.info("memory")["used_memory"] * 1.05))
    for path, name in (("/status?admin", "status-trouble"), ("/status", "status-trouble-public")):
        page.goto(node[0].url + path)
        page.locator(".alarm").nth(1).wait_for()
        yield name, side
    side.context.close()


def _asked(side: Side) -> Iterator[tuple[str, Side]]:
    """Yield the operator's page with all details open, and what it asks before it cancels, with scripts and without."""
    page = side.page
    page.set_viewport_size({"width": 390, "height": 844})  # a wide screen has no boxes to open
    for box in page.locator("input.more").all():
        box.check()
    yield "status-details", side
    page.reload()
    page.get_by_role("button", name="Cancel film.mkv").click()
    page.locator("dialog").wait_for()
    yield "status-sure", side
    page.keyboard.press("Escape")
    # As a browser without scripts does, which asks on a page of its own.
    page.evaluate("() => document.querySelector('.cancel-it').form.requestSubmit(document.querySelector('.cancel-it'))")
    page.get_by_role("link", name="Keep it").wait_for()
    yield "status-sure-plain", side


def _pretend(store: redis.Redis, prefix: str) -> None:
    """Let Redis say that there are nodes in every state, and transfers that are hard to show."""
    now = time.time()
    facts: dict[str, Any] = {"host": "host-2", "version": "0.2.0", "started": int(now) - 90_000}
    more: dict[str, Any] = {
        "waiting": 10_000,
        "uploading": 4,
        "interrupted": 1,
        "draining": 1,
        "rate_in": 5e6,
        "rate_out": 4e6,
    }
    more |= {"history": " ".join(str(step * step * 90_000) for step in range(30))}
    counts = {"complete": 1204, "no_downloader": 61, "downloader_gone": 7, "store_lost": 1}
    nodes: dict[str, dict[str, Any]] = {
        "b-draining-0a1b2c": facts | more | counts,
        "c-older-3d4e5f": facts | {"version": "0.1.0"},
        "d-lost-6f7a8b": {},
    }
    for node, fields in nodes.items():
        store.zadd(f"{prefix}:nodes", {node: now - (25 if not fields else 0)})
        if fields:
            store.hset(f"{prefix}:node:{node}", items=[part for pair in fields.items() for part in pair])
            store.pexpire(f"{prefix}:node:{node}", 600_000)
    at_once = {"length": 10**12, "delivered": 3 * 10**6, "rate": 0.0, "seconds": 0.4}
    hard = [
        ("%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E", State.STREAMING, at_once),
        (quote(ARABIC), State.STREAMING, {"length": 10**12, "delivered": 10**9, "rate": 3.0, "seconds": 9000.0}),
        (UNBROKEN, State.STREAMING, {"length": 10**9, "delivered": 10**9 - 1, "rate": 4e6, "seconds": 250.0}),
        ("pipe", State.STREAMING, {"length": None, "delivered": 5 * 10**12, "rate": 0.0, "seconds": 90_000.0}),
        ("away", State.INTERRUPTED, {"length": 10**6, "delivered": 10**5, "rate": 0.0, "seconds": 9.0, "left": 291.0}),
        (
            "pipe-that-waits",
            State.WAITING,
            {"length": None, "delivered": 0, "rate": 0.0, "seconds": 299.0, "left": 0.2},
        ),
    ]
    key = f"{prefix}:uploads:b-draining-0a1b2c"
    for at, (name, state, numbers) in enumerate(hard):
        to = "c-older-3d4e5f" if state is State.STREAMING else ""
        shown = Progress(f"{at:016}", "PublicId", name, state, "b-draining-0a1b2c", to, **numbers)  # type: ignore[arg-type]
        store.hset(key, shown.id, shown.dump())
    store.pexpire(key, 600_000)
