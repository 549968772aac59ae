"""A downloader that begins again from the first byte, although a resumable upload is further."""

import httpx

from tests.support.cluster import Cluster, Curl
from tests.support.resumable import PARTIAL


def append(address: str, content: bytes, offset: int, *, is_last: bool) -> httpx.Response:
    headers = {"Content-Type": PARTIAL, "Upload-Offset": str(offset), "Upload-Complete": "?1" if is_last else "?0"}
    return httpx.patch(address, content=content, headers=headers, timeout=30)


def test_the_uploader_goes_back_to_where_it_is_told(cluster: Cluster) -> None:
    """It is told so once, and its next request may begin there."""
    token = cluster.token()
    location = httpx.post(cluster.url(0, token, "x"), headers={"Upload-Complete": "?0"}).headers["location"]
    address = cluster[1].url + location
    with Curl(cluster.url(1, token, "x")):
        assert append(address, b"abcd", 0, is_last=False).status_code == 204
    with Curl(cluster.url(2, token, "x")) as download:
        told = append(address, b"efg", 4, is_last=True)
        assert (told.status_code, told.headers["upload-offset"]) == (409, "0")
        assert httpx.head(address).headers["upload-offset"] == "0"
        assert append(address, b"abcdefg", 0, is_last=True).status_code == 200
        assert download.finish() == (0, b"abcdefg")
