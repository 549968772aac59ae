"""The status page in a real browser, alone and below the page that sends: its policy, script and layout."""

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser, Page

from tests.support.cluster import Cluster, Curl, NodeProcess

SECRET = "the-operators-secret"
PHONE: dict[str, Any] = {"viewport": {"width": 360, "height": 740}}
#: A name that contains HTML markup, and its percent-encoded form.
NAME = "x" * 200 + " <img src=x onerror=alert(1)>"
LONG_NAME = quote(NAME)


@pytest.fixture(scope="module")
def node(browser: Browser) -> Iterator[Cluster]:
    settings = {"admin_secret": SECRET, "heartbeat": 0.2, "node_death": 1}
    cluster = Cluster([NodeProcess("a-node-with-a-long-name.example.org-a1b2c3", settings=settings)], None, "relay")
    yield cluster
    cluster.stop()


@pytest.fixture
def stream(node: Cluster) -> Iterator[Curl]:
    """Start an upload whose bytes are downloaded as the test writes them."""
    token = node.token()
    with Curl("-T", "-", node.url(0, token, LONG_NAME), pipe=True) as upload:
        node.wait_state(token, "waiting")
        with Curl("-N", "-o", "/dev/null", node.url(0, token, LONG_NAME)):
            upload.write(b"x" * 1000)
            yield upload


class Visit:
    """A visit to a page. It fails if the browser complains of anything but `expected`."""

    def __init__(self, browser: Browser, url: str, *, expected: str = "nothing", **options: Any) -> None:
        self.complaints: list[str] = []
        self._expected = expected
        self._context = browser.new_context(**options)
        self.page: Page = self._context.new_page()
        self.page.on("console", lambda message: self.complaints.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        self.page.on("dialog", lambda dialog: self.complaints.append(f"dialog: {dialog.message}"))
        self.page.goto(url)

    def __enter__(self) -> Page:
        return self.page

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self._context.close()
        if kind is None:
            assert [complaint for complaint in self.complaints if self._expected not in complaint] == []


def background(page: Page) -> list[int]:
    color = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return [int(part) for part in re.findall(r"\d+", color)[:3]]


def test_it_renders_and_updates_without_a_reload(browser: Browser, node: Cluster, stream: Curl) -> None:
    with Visit(browser, node[0].url + "/status") as page:
        page.wait_for_selector("td .streaming", timeout=20_000)
        page.evaluate("window.reloaded = false")
        stream.write(b"x" * 4096)
        page.wait_for_selector("td:has-text('5.0 KiB')", timeout=20_000)
        stream.close()
        page.wait_for_selector("text=Nobody is transferring anything.", timeout=20_000)
        assert page.evaluate("window.reloaded") is False
        assert page.title() == "relay: 0 streaming, 0 waiting"


def test_its_style_is_applied_in_light_and_dark(browser: Browser, node: Cluster) -> None:
    with Visit(browser, node[0].url + "/status", color_scheme="light") as page:
        assert min(background(page)) > 200
    with Visit(browser, node[0].url + "/status", color_scheme="dark") as page:
        assert max(background(page)) < 60


@pytest.mark.parametrize("path", ["/", "/?admin", "/status", "/status?admin"])
def test_on_a_phone_nothing_is_wider_than_the_screen(browser: Browser, node: Cluster, stream: Curl, path: str) -> None:
    credentials = {"username": "", "password": SECRET}
    with Visit(browser, node[0].url + path, http_credentials=credentials, **PHONE) as page:
        page.wait_for_selector("td .streaming", timeout=20_000)
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        widest = page.evaluate("Math.max(...[...document.querySelectorAll('section *')].map(e => e.scrollWidth))")
        assert widest <= 360


def test_the_operator_signs_in_with_basic_and_names_are_shown_as_text(
    browser: Browser, node: Cluster, stream: Curl
) -> None:
    credentials = {"username": "", "password": SECRET}
    with Visit(browser, node[0].url + "/status?admin", http_credentials=credentials) as page:
        name = page.wait_for_selector("th bdi", timeout=20_000)
        assert name is not None
        assert name.inner_text() == NAME


def test_the_page_says_when_the_relay_does_not_answer(browser: Browser, node: Cluster) -> None:
    with Visit(browser, node[0].url + "/status", expected="status of 503") as page:
        page.route("**/*", lambda route: route.fulfill(status=503, body="down"))
        page.wait_for_selector("#stale:visible", timeout=20_000)
        assert page.locator("h1").inner_text() == "relay", "the last known state stays on the page"
        page.unroute("**/*")
        page.wait_for_selector("#stale", state="hidden", timeout=20_000)


def test_without_script_it_reloads_itself(browser: Browser, node: Cluster) -> None:
    with Visit(browser, node[0].url + "/status", java_script_enabled=False) as page:
        assert 'http-equiv="refresh"' in page.content()
        with page.expect_navigation(timeout=30_000):
            pass


@pytest.fixture
def waiting(node: Cluster) -> Iterator[Curl]:
    """Start an upload `my file` that waits."""
    token = node.token()
    with Curl("-T", "-", "-w", "%{http_code}", node.url(0, token, "my%20file"), pipe=True) as upload:
        node.wait_state(token, "waiting")
        yield upload


def operator(browser: Browser, node: Cluster, **options: Any) -> Visit:
    """Visit the status page as the operator."""
    credentials = {"username": "", "password": SECRET}
    return Visit(browser, node[0].url + "/status?admin", http_credentials=credentials, **options)


def test_a_token_is_copied(browser: Browser, node: Cluster, waiting: Curl) -> None:
    with Visit(browser, node[0].url + "/status", permissions=["clipboard-read", "clipboard-write"]) as page:
        button = page.locator(".transfers .copy-token").first
        button.click()
        page.get_by_text("Copied").first.wait_for(state="attached")
        assert page.evaluate("() => navigator.clipboard.readText()") == button.get_attribute("data-copy")


def test_the_button_asks_and_then_cancels_for_both_sides(browser: Browser, node: Cluster, waiting: Curl) -> None:
    with operator(browser, node) as page:
        page.get_by_role("button", name="Cancel my file").click()
        dialog = page.get_by_role("dialog", name="Cancel the transfer of my file?")
        dialog.get_by_role("button", name="Keep it").click()
        dialog.wait_for(state="detached")
        assert page.evaluate("() => document.activeElement.textContent") == "Cancel", "the focus is where it was"
        page.get_by_role("button", name="Cancel my file").click()
        dialog.get_by_role("button", name="Cancel the transfer").click()
        page.get_by_text("Nobody is transferring anything.").wait_for()
        assert waiting.finish()[1].endswith(b"410")


def test_the_button_says_that_a_transfer_is_over(browser: Browser, node: Cluster, waiting: Curl) -> None:
    with operator(browser, node, expected="status of 404") as page:
        page.get_by_role("button", name="Cancel my file").click()
        waiting.process.kill()
        page.get_by_text("Nobody is transferring anything.").wait_for()
        page.get_by_role("button", name="Cancel the transfer").click()
        page.get_by_text("This transfer has ended already.").wait_for()


@pytest.mark.parametrize("host", ["127.0.0.1", "relay.test"])
def test_without_script_the_button_asks_on_a_page_of_its_own(
    browser: Browser, node: Cluster, waiting: Curl, host: str
) -> None:
    """Over plain HTTP, as relay.test has it, a browser says only by `Origin` which site's page has the button."""
    with operator(browser, node, java_script_enabled=False) as page:
        page.goto(f"http://{host}:{node[0].port}/status?admin")
        page.get_by_role("button", name="Cancel my file").click()
        page.get_by_role("button", name="Cancel the transfer").click()
        page.wait_for_url("**/status?admin")
        assert waiting.finish()[1].endswith(b"410")


def test_a_page_of_another_site_cancels_nothing(browser: Browser, node: Cluster, waiting: Curl) -> None:
    """Not even with a signature, which it cannot know, and the operator's password, which the browser adds."""
    with operator(browser, node, expected="status of 403") as page:
        which = page.locator(".cancel-it").first.get_attribute("value")
        form = f"<form method=post action={node[0].url}/status/cancel><input name=which value='{which}'>"
        form += "<input name=sure value=yes><button>Win a prize</button></form>"
        page.route("http://evil.test/", lambda route: route.fulfill(body=form, content_type="text/html"))
        page.goto("http://evil.test/")
        with page.expect_response("**/status/cancel") as answer:
            page.get_by_text("Win a prize").click()
        assert answer.value.status == 403
        assert waiting.process.poll() is None


def test_on_a_phone_a_row_has_two_lines_and_what_is_opened_stays_open(
    browser: Browser, node: Cluster, waiting: Curl
) -> None:
    with operator(browser, node, **PHONE) as page:
        row = page.locator(".transfers tbody tr").first
        height = row.bounding_box()
        assert height is not None
        assert height["height"] < 90
        assert not row.get_by_role("button", name="Cancel my file").is_visible()
        assert not page.locator(".tokens table").is_visible()
        row.get_by_label("Details").check()
        page.get_by_label("Show the tokens").focus()
        page.get_by_label("Show the tokens").check()
        with page.expect_response("**/status?admin"):
            pass
        page.wait_for_timeout(200)  # in which the answer is shown
        assert row.get_by_role("button", name="Cancel my file").is_visible()
        assert page.locator(".tokens table").is_visible()
        assert page.evaluate("() => document.activeElement.id") == "more-tokens"
