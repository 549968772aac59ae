"""Take the pictures of the page that the front page shows:  python -m tests.page.pictures FOLDER"""

import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, FloatRect, sync_playwright

from tests.browser.conftest import chromium
from tests.page.conftest import MIB, Side
from tests.page.states import sparse
from tests.support.cluster import alone

#: Pixels. Both pictures stand side by side, as high as each other.
HEIGHT, WIDE, PHONE = 580, 720, 360
SHOWN_AS = "localhost:4000"


def main(folder: Path) -> None:
    with (
        alone(admin_secret="a-secret", status="private") as node,
        tempfile.TemporaryDirectory() as files,
        sync_playwright() as playwright,
    ):
        rules = f"--host-resolver-rules=MAP {SHOWN_AS} 127.0.0.1:{node[0].port}"
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox", rules])
        _take(browser, Path(files), folder)
        browser.close()


def _take(browser: Browser, files: Path, folder: Path) -> None:
    sender = Side(browser, viewport={"width": WIDE, "height": HEIGHT}, device_scale_factor=2)
    sender.page.goto(f"http://{SHOWN_AS}/")
    sender.slow_down(8 * MIB)
    sender.page.set_input_files("#files", sparse(files / "holiday.mp4", 160 * MIB))
    link = sender.link()
    receiver = Side(browser, viewport={"width": PHONE, "height": HEIGHT}, device_scale_factor=2, color_scheme="dark")
    receiver.page.goto(link)
    receiver.page.locator('#file[data-state="ready"]').wait_for()
    receiver.page.click("#download")
    while sender.share() < 0.4:
        sender.page.wait_for_timeout(100)
    _save(sender, folder / "page-sends.png")
    _save(receiver, folder / "page-receives.png")


def _save(side: Side, file: Path) -> None:
    width = (side.page.viewport_size or {"width": WIDE})["width"]
    clip: FloatRect = {"x": 0, "y": 0, "width": width, "height": HEIGHT}
    side.page.screenshot(path=file, clip=clip, full_page=True)
    Image.open(file).convert("RGB").quantize(128, dither=Image.Dither.NONE).save(file, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
