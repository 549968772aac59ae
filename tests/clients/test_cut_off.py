"""A download that is cut off in the middle is not taken for a whole file, whatever the client.

What clients take for the whole, by how the response ends short of it (measured; `-`: none of these):

| | Content-Length | chunked |
|---|---|---|
| a plain end | urllib in pieces, requests with urllib3 1.26, HTTPie, HttpURLConnection | Node 20's fetch, if the response says `Connection: close` |
| a reset | - | the same |
| TLS, a plain end or a reset | the same; if a reset, then without HttpURLConnection | the same |
| a bad chunk that aiohttp does not permit (`x`) | | wget if there is no reset; aiohttp hangs |
| what the relay does to a client: a bad chunk (`1 `) or a bad TLS record, then a reset | - | - |
| what HAProxy and nginx do, whatever the node does: a plain end | as above | - |

`urllib in pieces` is `shutil.copyfileobj(urlopen(…), file)`. The balancers end the response to their client plainly:
HAProxy's `option nolinger` sends the plain end first and a reset after it, and then takes the end away from whole
files, too; nginx's `reset_timedout_connection` is for other ends.
"""  # noqa: E501

import itertools
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.clients.conftest import HALF, Route, Upload
from tests.clients.downloaders import DOWNLOADERS, Downloader

#: They compare nothing with the Content-Length, so that only a reset tells them; which no balancer passes on.
TRUSTING = {"urllib in pieces", "requests with urllib3 1.26", "HTTPie", "HttpURLConnection"}


@pytest.mark.parametrize("client", DOWNLOADERS, ids=str)
def test_a_cut_off_file_does_not_look_whole(client: Downloader, route: Route, is_proxied: bool, tmp_path: Path) -> None:
    client.skip_if_missing()
    cut, whole, before = route.token(), route.token(), route.delivered()
    with ThreadPoolExecutor(4) as pool:
        runs = {}
        for token, chunked in itertools.product((cut, whole), (True, False)):
            upload, file = Upload(route, token, chunked=chunked), tmp_path / f"{token}-{chunked}"
            url = f"{route.url}{upload.path}?wait=20"
            runs[token, chunked] = upload, file, pool.submit(client.download, url, file, route.certificate)
        route.wait_delivered(4, since=before)
        for (token, _), (upload, _, _) in runs.items():
            if token == cut:
                upload.break_off()
            else:
                upload.finish()
        takes_for_whole = {run: done.result() for run, (_, _, done) in runs.items()}
    is_fooled = is_proxied and client.name in TRUSTING
    assert takes_for_whole == {(whole, True): True, (whole, False): True, (cut, True): False, (cut, False): is_fooled}
    assert all(runs[whole, chunked][1].read_bytes() == 2 * HALF for chunked in (True, False))
