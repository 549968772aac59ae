"""Download a URL with one Python library: `download.py LIBRARY URL FILE`. Exit with 0 only if the library sees no fault.

It runs under other interpreters than the tests' own, so each library is imported only if it is asked for.
"""

import shutil
import sys
from pathlib import Path


def with_urllib(url: str, path: Path) -> None:
    from urllib.request import urlopen

    with urlopen(url, timeout=30) as response:
        path.write_bytes(response.read())


def with_urllib_in_pieces(url: str, path: Path) -> None:
    from urllib.request import urlopen

    with urlopen(url, timeout=30) as response, path.open("wb") as file:
        shutil.copyfileobj(response, file)


def with_requests(url: str, path: Path) -> None:
    import requests

    with requests.get(url, stream=True, timeout=30) as response, path.open("wb") as file:
        response.raise_for_status()
        for piece in response.iter_content(65536):
            file.write(piece)


def with_httpx(url: str, path: Path) -> None:
    import httpx

    with httpx.stream("GET", url, timeout=30) as response, path.open("wb") as file:
        response.raise_for_status()
        for piece in response.iter_bytes():
            file.write(piece)


def with_aiohttp(url: str, path: Path) -> None:
    import asyncio
    import ssl

    import aiohttp

    async def download() -> None:
        context = ssl.create_default_context()
        async with aiohttp.ClientSession(raise_for_status=True) as session, session.get(url, ssl=context) as response:
            with path.open("wb") as file:
                async for piece in response.content.iter_any():
                    file.write(piece)

    asyncio.run(download())


def main() -> None:
    library, url, path = sys.argv[1:]
    globals()["with_" + library](url, Path(path))


main()
