"""A download that is cut off in the middle is not taken for a whole file by Chromium."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Error, Page

from tests.browser.conftest import browser
from tests.clients.conftest import Route, Upload

__all__ = ["browser"]  # the fixture


@pytest.fixture
def page(browser: Browser, route: Route) -> Iterator[Page]:
    context = browser.new_context(accept_downloads=True, ignore_https_errors=True)
    yield context.new_page()
    context.close()


@pytest.mark.parametrize("is_whole", [True, False], ids=["whole", "cut"])
@pytest.mark.parametrize("chunked", [True, False], ids=["chunked", "Content-Length"])
def test_a_file_that_is_saved(page: Page, route: Route, chunked: bool, is_whole: bool) -> None:
    before, upload = route.delivered(), Upload(route, route.token(), chunked=chunked)
    with page.expect_download() as download, pytest.raises(Error, match=r"Download is starting|aborted"):
        page.goto(route.url + upload.path)
    route.wait_delivered(1, since=before)
    if is_whole:
        upload.finish()
    else:
        upload.break_off()
    assert (download.value.failure() is None) is is_whole
