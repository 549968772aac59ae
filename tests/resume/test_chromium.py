"""Chromium's own download goes on where it was, without anybody pressing anything."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Error, Page

from tests.browser.conftest import browser
from tests.resume.conftest import SIZE
from tests.support.cluster import Cluster, Curl
from tests.support.cutting import Cut, CuttingProxy

__all__ = ["browser"]  # the fixture


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(accept_downloads=True)
    yield context.new_page()
    context.close()


def test_a_download_that_ends_too_soon_three_times_arrives_whole(page: Page, cluster: Cluster, big_file: Path) -> None:
    """After a reset, it waits for the person to press Resume."""
    token = cluster.token()
    proxy = CuttingProxy([node.port for node in cluster.nodes[1:]], Cut.FIN, [SIZE // 6] * 3)
    try:
        with Curl("-w", "%{http_code}", "-H", "Expect:", "-T", big_file, cluster.url(0, token, "x")) as upload:
            with page.expect_download() as download, pytest.raises(Error, match=r"Download is starting|aborted"):
                page.goto(f"http://127.0.0.1:{proxy.port}/{token}/x?wait=20")
            assert download.value.failure() is None
            assert download.value.path().read_bytes() == big_file.read_bytes()
            assert upload.finish() == (0, f"delivered {SIZE} bytes\n200".encode())
        assert proxy.cuts_left == 0
    finally:
        proxy.close()
