"""A real browser saves what strangers upload and never runs it, whatever media type the upload claims."""

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from playwright.sync_api import Browser, Error, Page

from tests.support.cluster import Cluster, Curl, NodeProcess
from tests.support.wait import wait_until

SCRIPT = "try { (window.opener || window.parent).postMessage('ran', '*') } catch (e) {}; new Image().src = '%s/ran';"
PAYLOADS = {
    "text/html": "<!doctype html><script>{}</script>",
    "application/xhtml+xml": '<html xmlns="http://www.w3.org/1999/xhtml"><script>{}</script></html>',
    "image/svg+xml": '<svg xmlns="http://www.w3.org/2000/svg"><script>{}</script></svg>',
    "text/xml": '<x:script xmlns:x="http://www.w3.org/1999/xhtml">{}</x:script>',
    "text/javascript": "{}",
    "multipart/x-mixed-replace; boundary=b": "--b\r\nContent-Type: text/html\r\n\r\n<script>{}</script>\r\n--b--",
    "": "<!doctype html><script>{}</script>",
}


class Host:
    """A page of another origin. A payload that runs requests `/ran` from it, so `asked` shows whether one has run."""

    def __init__(self) -> None:
        host = self
        self.page = ""
        self.asked: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                host.asked.append(self.path)
                content = host.page.encode()
                self.send_response(200)
                self.send_header("content-type", "text/html")
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *arguments: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://localhost:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    host = Host()
    yield host
    host.server.shutdown()
    host.server.server_close()


@pytest.fixture(scope="module")
def node() -> Iterator[Cluster]:
    cluster = Cluster([NodeProcess("alone", settings={"upload_wait": 60})], None, "relay")
    yield cluster
    cluster.stop()


@pytest.fixture
def page(browser: Browser, host: Host) -> Iterator[Page]:
    host.asked.clear()
    context = browser.new_context(accept_downloads=True)
    yield context.new_page()
    context.close()


def put(cluster: Cluster, kind: str, host: Host) -> tuple[str, Curl]:
    """Upload the payload of this type, and return its URL and the waiting curl."""
    token = cluster.token()
    url = cluster.url(0, token, "x")
    upload = Curl("-T", "-", "-H", f"Content-Type: {kind}" if kind else "Content-Type:", url, pipe=True)
    upload.write_all(PAYLOADS[kind].replace("{}", SCRIPT % host.url).encode())
    cluster.wait_state(token, "waiting")
    return url, upload


def test_the_payloads_would_run_if_they_could(page: Page, host: Host) -> None:
    """Without this check, the tests below would prove nothing."""
    host.page = PAYLOADS["text/html"].replace("{}", SCRIPT % host.url)
    page.goto(host.url)
    wait_until(lambda: "/ran" in host.asked, "the script to run")


@pytest.mark.parametrize("kind", PAYLOADS)
def test_a_payload_that_is_opened_is_saved(page: Page, node: Cluster, host: Host, kind: str) -> None:
    url, upload = put(node, kind, host)
    with upload:
        with page.expect_download() as download, pytest.raises(Error, match=r"Download is starting|aborted"):
            page.goto(url)
        assert download.value.path().read_bytes() == PAYLOADS[kind].replace("{}", SCRIPT % host.url).encode()
        assert upload.finish()[0] == 0
    assert download.value.suggested_filename.startswith("x")
    assert page.url == "about:blank"
    assert "/ran" not in host.asked


@pytest.mark.parametrize(
    ("how", "kind"),
    [
        ('<iframe src="{}"></iframe>', "text/html"),
        ('<iframe src="{}"></iframe>', "application/xhtml+xml"),
        ('<object data="{}"></object>', "image/svg+xml"),
        ('<embed src="{}">', "text/xml"),
        ('<script src="{}"></script>', "text/javascript"),
        ('<script src="{}"></script>', ""),
    ],
)
def test_an_embedded_payload_does_not_run(page: Page, node: Cluster, host: Host, kind: str, how: str) -> None:
    url, upload = put(node, kind, host)
    listening = "<script>addEventListener('message', e => { if (e.data == 'ran') fetch('/ran') })</script>"
    host.page = f"<!doctype html>{listening}{how.replace('{}', url)}"
    over: list[str] = []
    for event in ("requestfinished", "requestfailed"):
        page.on(event, lambda request: over.append(request.url))
    with upload:
        page.goto(host.url, wait_until="load")
        deadline = time.monotonic() + 30
        while url not in over and time.monotonic() < deadline:
            page.wait_for_timeout(20)  # in which playwright takes events
        assert url in over
        httpx.delete(url)  # the upload that nothing has taken, or that waits for a downloader that was cut off
        upload.finish()
        page.evaluate("() => new Promise(done => setTimeout(done, 100))")
    assert "/ran" not in host.asked


@pytest.mark.parametrize("how", ["prefetch", "prerender"])
def test_a_link_that_is_fetched_ahead_of_time_takes_nothing(page: Page, node: Cluster, host: Host, how: str) -> None:
    url, upload = put(node, "text/html", host)
    host.page = f'<!doctype html><link rel="{how}" href="{url}"><p>page</p>'
    with upload:
        page.goto(host.url, wait_until="networkidle")
        assert upload.process.poll() is None
        with page.expect_download() as download, pytest.raises(Error):
            page.goto(url)
        assert download.value.path().read_bytes()
