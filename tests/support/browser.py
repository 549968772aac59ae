"""A real browser: Debian's Chromium, driven by Playwright."""

import contextlib
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@contextlib.contextmanager
def chromium() -> Iterator["Browser"]:
    """A headless Chromium.  Skips the test where there is none."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no chromium on PATH (apt install chromium): pages were not tested in a browser")
    if find_spec("playwright") is None:
        pytest.skip("no playwright (pip install playwright): pages were not tested in a browser")
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 (absent on most machines)

    with sync_playwright() as playwright:
        # Without its sandbox, which a container's root may not have; it sees nothing but our own pages.
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()
