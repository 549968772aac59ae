"""Every state of the pages: axe-core finds nothing serious, and nothing is wider than the screen, in light and dark.

With RELAY_TEST_SCREENSHOTS=FOLDER in the environment, it takes a picture of each, to be looked at.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.page import states
from tests.page.conftest import Side
from tests.support.cluster import Cluster, alone, over_redis
from tests.support.redis import RedisServer, newest

AXE = Path(__file__).parents[2] / "relay" / "page" / "node_modules" / "axe-core" / "axe.min.js"
SECRET = "the-operators-secret"
SCREENSHOTS = os.environ.get("RELAY_TEST_SCREENSHOTS")
#: Widths and heights of the screens. Most phones are 390 wide, and no phone is narrower than 320.
SCREENS = {"wide": (1280, 800), "phone": (390, 844), "small": (320, 568)}
#: Contrasts are those of the scheme, and layouts those of the width. So two of them are enough for every day.
LOOKED_AT = [("wide", "light"), ("small", "dark")]
if SCREENSHOTS or "RELAY_TEST_FULL" in os.environ:
    LOOKED_AT = [(screen, scheme) for screen in SCREENS for scheme in ("light", "dark")]
RUN = """axe.run(document, {resultTypes: ["violations"]}).then(({violations}) => violations
    .filter(({impact}) => ["serious", "critical"].includes(impact))
    .map(({id, nodes}) => `${id}: ${nodes.map((node) => node.html.slice(0, 200)).join(" and ")}`))"""


@pytest.fixture(scope="module")
def axe() -> str:
    """Return the source of axe-core. It is empty if axe-core is not installed."""
    if "RELAY_TESTS_NEED_NPM" in os.environ:
        assert AXE.exists(), "run .ci/page, which installs axe-core"
    return AXE.read_text() if AXE.exists() else ""


@pytest.fixture(scope="module")
def node(browser: Browser) -> Iterator[Cluster]:
    with alone(heartbeat=0.5, node_death=2, resume_wait=300, admin_secret=SECRET) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def watched(browser: Browser) -> Iterator[Cluster]:
    """Start a node on a Redis of its own, which the test may set up wrongly."""
    with (
        RedisServer(newest("the status page was not looked at")) as server,
        over_redis(server, ["a"], heartbeat=0.5, node_death=2, admin_secret=SECRET) as cluster,
    ):
        yield cluster


@pytest.fixture(scope="module")
def closed(browser: Browser) -> Iterator[Cluster]:
    with alone("closed", token_secret="the-senders-secret") as cluster:
        yield cluster


def complaints(name: str, side: Side, axe: str) -> Iterator[str]:
    """Look at a page on every screen, in light and dark, and yield what is wrong with it."""
    page = side.page
    # The page's policy allows no script but its own. That of the developer tools is not subject to it.
    devtools = side.context.new_cdp_session(page)
    devtools.send("Runtime.evaluate", {"expression": axe})
    for screen, scheme in LOOKED_AT:
        width, height = SCREENS[screen]
        page.set_viewport_size({"width": width, "height": height})
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # type: ignore[arg-type]
        where = f"{name}-{screen}-{scheme}"
        if SCREENSHOTS:
            page.screenshot(path=Path(SCREENSHOTS) / f"{where}.png", full_page=True)
        if page.evaluate("() => document.documentElement.scrollWidth > innerWidth"):
            yield f"{where}: wider than the screen"
        if axe:
            run = {"expression": RUN, "awaitPromise": True, "returnByValue": True}
            yield from (f"{where}: {each}" for each in devtools.send("Runtime.evaluate", run)["result"]["value"])
    devtools.detach()
    page.set_viewport_size({"width": 1280, "height": 800})


def check(found: Iterator[tuple[str, Side]], axe: str) -> None:
    assert [each for name, side in found for each in complaints(name, side, axe)] == []
    if not axe:
        pytest.skip("no axe-core (.ci/page installs it): the page's accessibility was not tested")


def test_sending(browser: Browser, node: Cluster, closed: Cluster, axe: str, tmp_path: Path) -> None:
    check(states.sending(browser, node, closed, tmp_path), axe)


def test_receiving(browser: Browser, node: Cluster, axe: str, tmp_path: Path) -> None:
    check(states.receiving(browser, node, tmp_path), axe)


def test_watching(browser: Browser, watched: Cluster, axe: str, tmp_path: Path) -> None:
    check(states.watching(browser, watched, tmp_path, SECRET), axe)
