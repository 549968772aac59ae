"""Fixture: a real browser, Debian's Chromium, driven by Playwright."""

import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, sync_playwright


def chromium() -> str:
    """Return the path of Chromium. Skip the test if none is installed."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no chromium on PATH (apt install chromium): nothing was tested in a browser")
    return program


# No wider scope than module: while Playwright runs, no test can have an event loop in this thread.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Start a headless Chromium. Skip the test if none is installed."""
    program = chromium()
    with sync_playwright() as playwright:
        # A container's root user may not be allowed to use Chromium's sandbox. It opens only our own pages.
        # To a browser, the address of this machine is as safe as HTTPS; relay.test is plain HTTP as others have it.
        arguments = ["--no-sandbox", "--host-resolver-rules=MAP relay.test 127.0.0.1"]
        browser = playwright.chromium.launch(executable_path=program, args=arguments)
        yield browser
        browser.close()
