"""Download a URL with one Python library: `download.py LIBRARY URL FILE`. Exit with 0 only if it sees no fault.

It runs under other interpreters than the tests' own, so it imports a library only when it uses it.
"""

import asyncio
import shutil
import ssl
import sys
from importlib import import_module
from pathlib import Path
from urllib.request import urlopen


def with_urllib(url: str, path: Path) -> None:
    with urlopen(url, timeout=30) as response:
        path.write_bytes(response.read())


def with_urllib_in_pieces(url: str, path: Path) -> None:
    with urlopen(url, timeout=30) as response, path.open("wb") as file:
        shutil.copyfileobj(response, file)


def with_requests(url: str, path: Path) -> None:
    requests = import_module("requests")
    with requests.get(url, stream=True, timeout=30) as response, path.open("wb") as file:
        response.raise_for_status()
        for piece in response.iter_content(65536):
            file.write(piece)


def with_httpx(url: str, path: Path) -> None:
    httpx = import_module("httpx")
    with httpx.stream("GET", url, timeout=30) as response, path.open("wb") as file:
        response.raise_for_status()
        for piece in response.iter_bytes():
            file.write(piece)


def with_aiohttp(url: str, path: Path) -> None:
    aiohttp = import_module("aiohttp")

    async def download() -> None:
        context = ssl.create_default_context()
        async with aiohttp.ClientSession(raise_for_status=True) as session, session.get(url, ssl=context) as response:
            with path.open("wb") as file:
                async for piece in response.content.iter_any():
                    file.write(piece)

    asyncio.run(download())


if __name__ == "__main__":
    library, url, path = sys.argv[1:]
    globals()["with_" + library](url, Path(path))
