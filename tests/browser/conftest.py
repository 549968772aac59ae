"""A real browser: Debian's Chromium, driven by Playwright."""

import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, sync_playwright


@pytest.fixture(scope="module")  # not longer: while Playwright runs, this thread can have no event loop of a test's
def browser() -> Iterator[Browser]:
    """A headless Chromium.  Skips the test where there is none."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no chromium on PATH (apt install chromium): nothing was tested in a browser")
    with sync_playwright() as playwright:
        # Without its sandbox, which a container's root may not have; it sees nothing but our own pages.
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()
