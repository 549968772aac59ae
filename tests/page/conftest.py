"""Fixtures: two nodes over one Redis, HAProxy before them, and a browser with a profile for each side."""

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request

from relay.names import UploadAddress
from tests.browser.conftest import browser
from tests.support.cluster import Cluster, alone, over_redis, random_file
from tests.support.haproxy import HAProxy
from tests.support.redis import RedisServer

__all__ = ["browser"]  # the fixture

MIB = 1024 * 1024
#: Bytes of the file that is sent. After a break in the middle, more must be left than the buffers on the way hold: the
#: kernel takes up to 26 MB for a receiver that is slow, and that counts as delivered.
SIZE = (200 if os.environ.get("RELAY_TEST_FULL") else 120) * MIB
#: Milliseconds in which the slowest step is over.
LONG = 40_000


@pytest.fixture(scope="module")
def cluster(redis_server: RedisServer) -> Iterator[Cluster]:
    with over_redis(redis_server, "ab", heartbeat=0.5, node_death=2, resume_wait=30) as cluster:
        yield cluster
        cluster.wait_clean()


@pytest.fixture(scope="module")
def node(browser: Browser) -> Iterator[Cluster]:
    """Start one node by itself."""
    with alone(heartbeat=0.5, node_death=2) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def haproxy(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HAProxy]:
    with HAProxy(cluster.nodes, tmp_path_factory.mktemp("haproxy")) as balancer:
        yield balancer


@pytest.fixture(scope="session")
def big_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_file(tmp_path_factory.mktemp("page") / "a file.bin", SIZE)


class Side:
    """One person's browser: a profile of its own, and what the browser complained of."""

    def __init__(self, browser: Browser, **options: object) -> None:
        self.context: BrowserContext = browser.new_context(accept_downloads=True, **options)  # type: ignore[arg-type]
        self.context.set_default_timeout(LONG)
        self.page: Page = self.context.new_page()
        # What one session slows down, another one cannot make fast again.
        self._devtools = self.context.new_cdp_session(self.page)
        self.complaints: list[str] = []
        #: The method of each request.
        self.requests: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.method))
        #: The method and the `Upload-Offset` of each request to the address of a resumable upload.
        self.uploads: list[tuple[str, str | None]] = []
        self.page.on("request", self._on_request)
        self.addresses: list[str] = []
        self.page.on("request", lambda request: self.addresses.append(request.url))
        self.page.on("console", self._on_console)
        self.page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        self.page.on("dialog", self._on_dialog)

    def _on_request(self, request: Request) -> None:
        if UploadAddress.fits(request.url.rpartition("/")[2].encode()):
            self.uploads.append((request.method, request.headers.get("upload-offset")))

    def _on_console(self, message: ConsoleMessage) -> None:
        if "status of 404" not in message.text:  # how the receiving page learns that a sender is not there
            self.complaints.append(f"{message.type}: {message.text}")

    def _on_dialog(self, dialog: object) -> None:
        kind = getattr(dialog, "type")  # noqa: B009 (playwright's Dialog is typed loosely)
        if kind != "beforeunload":
            self.complaints.append(f"dialog: {kind}")
        getattr(dialog, "accept")()  # noqa: B009

    def send(self, url: str, file: Path, field: str = "#files") -> str:
        """Open the page, choose a file (or a folder, in the field for that), and return the link for its receiver."""
        self.page.goto(url)
        self.page.set_input_files(field, file)
        return self.link()

    def link(self) -> str:
        """Return the link of the latest file, once it is there."""
        field = self.page.locator(".link").first
        field.wait_for(state="visible")
        return field.input_value()

    def wait_state(self, state: str) -> None:
        self.page.locator(f'.row[data-state="{state}"]').first.wait_for(state="attached")

    def wait_moving(self) -> None:
        """Wait until the page says that the receiver has some of the file."""
        # Playwright's wait_for_function evaluates a string, which the page's policy forbids.
        self.page.locator('.row progress:not([value="0"])').first.wait_for(state="attached")

    def share(self) -> float:
        """Return how much of the latest file the page says that the receiver has, from 0 to 1."""
        return float(self.page.locator(".row progress").first.get_attribute("value") or 0)

    def receive(self, link: str) -> Path:
        """Open the link, press the button, and return the file that the browser has saved."""
        self.page.goto(link)
        self.page.locator("#download").wait_for(state="visible")
        with self.page.expect_download() as download:
            self.page.locator("#download").click()
        assert download.value.failure() is None
        return Path(download.value.path())

    def slow_down(self, rate: int) -> None:
        """Let the page send at most `rate` bytes a second, or as many as it can if -1, in the requests that it begins
        from now on. Chromium does not slow down a request that is under way.
        """
        conditions = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": rate}
        self._devtools.send("Network.emulateNetworkConditions", conditions)

    def slow_processor(self, times: int) -> None:
        """Let the page have only a part of the processor from now on, as on an old phone."""
        self._devtools.send("Emulation.setCPUThrottlingRate", {"rate": times})

    def policy_complaints(self) -> list[str]:
        return [said for said in self.complaints if "Content Security Policy" in said or "TrustedHTML" in said]


@pytest.fixture
def sides(browser: Browser) -> Iterator[tuple[Side, Side]]:
    """Yield a sender and a receiver. Afterwards, check that the policy has blocked nothing."""
    with contextlib.ExitStack() as stack:
        sender, receiver = Side(browser), Side(browser)
        stack.callback(sender.context.close)
        stack.callback(receiver.context.close)
        yield sender, receiver
        assert sender.policy_complaints() == receiver.policy_complaints() == []


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def address_of(link: str, base: str) -> str:
    """Return the address that a terminal downloads, of a link for a browser."""
    fragment = link.partition("#")[2].removesuffix("&text")
    assert unquote(fragment) != ""
    return f"{base}/{fragment}"
