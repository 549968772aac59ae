"""The page's files as a client gets them, and the progress that it asks for."""

import re
from collections.abc import Iterator

import httpx
import pytest
import segno

from relay.page.files import ASSETS, POLICY
from tests.support.cluster import Cluster, Curl, alone, curl
from tests.support.wait import wait_until

BROWSER = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
SECRET = "the-operators-secret"


@pytest.fixture(scope="module")
def node() -> Iterator[Cluster]:
    with alone(heartbeat=0.2, node_death=1) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def private() -> Iterator[Cluster]:
    with alone("private", admin_secret=SECRET, status="private") as cluster:
        yield cluster


@pytest.mark.parametrize("name", ASSETS)
def test_a_file_is_kept_as_long_as_it_is_the_same(node: Cluster, name: str) -> None:
    first = httpx.get(f"{node[0].url}/page/{name}")
    assert first.status_code == 200
    assert first.headers["cache-control"] == "no-cache"
    assert first.headers["x-content-type-options"] == "nosniff"
    kind = {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}[name.rpartition(".")[2]]
    assert first.headers["content-type"].startswith(kind)
    for etag, status in ((first.headers["etag"], 304), ('"another"', 200)):
        again = httpx.get(f"{node[0].url}/page/{name}", headers={"if-none-match": etag})
        assert (again.status_code, again.content) == (status, b"" if status == 304 else first.content)
    head = httpx.head(f"{node[0].url}/page/{name}")
    assert (head.content, head.headers["content-length"]) == (b"", str(len(first.content)))


@pytest.mark.parametrize("name", ["nothing", "", "send.html", "..%2Ffiles.py", "%2e%2e", "%ff", "send.js%00"])
def test_nothing_else_is_served(node: Cluster, name: str) -> None:
    assert httpx.get(f"{node[0].url}/page/{name}").status_code == 404
    assert httpx.put(f"{node[0].url}/page/{name}", content=b"x").status_code == 405


def test_scripts_import_only_files_that_are_there() -> None:
    for name, file in ASSETS.items():
        for imported in re.findall(r'from "\./([^"]+)"', file.content.decode()):
            assert imported in ASSETS, (name, imported)


def test_scripts_take_no_text_for_html_or_code() -> None:
    for name, file in ASSETS.items():
        sinks = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|Function\("
        assert not re.findall(sinks, file.content.decode()), name


def test_a_browser_gets_the_page_and_others_the_tables(node: Cluster) -> None:
    page = httpx.get(node[0].url, headers=BROWSER)
    assert page.headers["content-security-policy"] == POLICY
    assert page.headers["cache-control"] == "no-store"
    assert 'id="drop"' in page.text
    assert 'id="status"' in page.text
    tables = httpx.get(node[0].url + "/status", headers=BROWSER)
    assert 'id="drop"' not in tables.text
    assert 'id="status"' in tables.text
    assert httpx.get(node[0].url).text.startswith("streaming 0 ")
    assert httpx.get(node[0].url + "/status").text.startswith("streaming 0 ")
    for path in ("/", "/status"):
        assert "streaming" in httpx.get(node[0].url + path, headers={"accept": "application/json"}).json()


def test_a_private_relay_shows_a_stranger_the_page_alone(private: Cluster) -> None:
    page = httpx.get(private[0].url, headers=BROWSER)
    assert (page.status_code, 'id="drop"' in page.text, 'id="status"' in page.text) == (200, True, False)
    assert private[0].id not in page.text
    assert httpx.get(private[0].url + "/status", headers=BROWSER).status_code == 401
    assert httpx.get(private[0].url + "/?admin", headers=BROWSER).status_code == 401
    assert httpx.get(private[0].url, headers=BROWSER, auth=("", "wrong")).status_code == 401
    assert 'id="status"' in httpx.get(private[0].url, headers=BROWSER, auth=("", SECRET)).text


def test_the_receiving_page_is_the_same_for_everybody(private: Cluster, node: Cluster) -> None:
    pages = [httpx.get(each[0].url + "/receive", headers=BROWSER) for each in (private, node)]
    assert pages[0].content == pages[1].content
    assert pages[0].headers["etag"] == pages[1].headers["etag"]
    assert pages[0].headers["content-security-policy"] == POLICY


def test_curl_does_not_take_the_page_for_the_file(node: Cluster) -> None:
    done = curl("-f", node[0].url + "/receive#LINK/holiday.zip")
    assert done.returncode == 22
    assert b"as /LINK/NAME" in curl(node[0].url + "/receive#LINK/holiday.zip").stdout


def test_a_token_shows_how_much_of_its_transfers_is_delivered(node: Cluster) -> None:
    token = node.token()
    url = node.url(0, token, "x")

    def delivered() -> list[int]:
        listed = httpx.get(node.url(0, token), headers={"accept": "application/json"}).json()["transfers"]
        return [transfer["delivered"] for transfer in listed]

    with Curl("-T", "-", url, pipe=True) as upload:
        node.wait_state(token, "waiting")
        assert delivered() == [0]
        with Curl("-N", url) as download:
            upload.write(b"x" * 1000)
            assert download.read(1000) == b"x" * 1000
            wait_until(lambda: delivered() == [1000], "the bytes to be shown")
            upload.close()
            assert download.finish()[0] == 0
    assert delivered() == []


def test_a_link_that_receives_shows_how_far_its_name_is(node: Cluster) -> None:
    token = node.token()
    url = node.url(0, token, "x")
    link = node.url(0, httpx.post(url + "/link").text.strip(), "x")

    def seen() -> tuple[str | None, str | None]:
        headers = httpx.head(link).headers
        return headers.get("relay-state"), headers.get("relay-delivered")

    with Curl("-T", "-", url, pipe=True) as upload:
        node.wait_state(token, "waiting")
        assert seen() == ("waiting", "0")
        with Curl("-N", link) as download:
            upload.write(b"x" * 1000)
            assert download.read(1000) == b"x" * 1000
            wait_until(lambda: seen() == ("streaming", "1000"), "the bytes to be shown")
            upload.close()
            assert download.finish()[0] == 0
    assert seen() == (None, None)


@pytest.mark.parametrize("ending", ["complete", "cancelled"])
def test_a_link_that_receives_shows_how_a_resumable_upload_ended(node: Cluster, ending: str) -> None:
    token = node.token()
    url = node.url(0, token, "x")
    link = node.url(0, httpx.post(url + "/link").text.strip(), "x")

    def create() -> str:
        made = httpx.put(url, headers={"upload-complete": "?0", "upload-length": "3"}, content=b"")
        return node[0].url + made.headers["location"]

    upload = create()
    etag = httpx.head(link).headers["etag"]
    if ending == "complete":
        fields = ("-H", "Content-Type: application/partial-upload", "-H", "Upload-Offset: 0")
        with Curl("-f", "-X", "PATCH", "-d", "abc", *fields, "-H", "Upload-Complete: ?1", upload) as sender:
            assert curl("-f", link + "?wait=20").stdout == b"abc"
            assert sender.finish()[0] == 0
    else:
        assert httpx.delete(upload).status_code == 204
    told = httpx.head(link, headers={"if-match": etag})
    assert (told.status_code, told.headers["relay-outcome"]) == (404, ending)
    assert told.headers["relay-delivered"] == ("3" if ending == "complete" else "0")
    another = create()
    told = httpx.head(link, headers={"if-match": etag})
    assert (told.status_code, told.headers["relay-outcome"]) == (412, ending)
    for other in ('"0123456789abcdef"', f"W/{etag}", f'{etag}, "x"', '":"', "*", '"' + "x" * 500 + '"'):
        assert "relay-outcome" not in httpx.head(link, headers={"if-match": other}).headers
    stranger = node.url(0, httpx.post(node.url(0, token, "y") + "/link").text.strip(), "x")
    told = httpx.head(stranger, headers={"if-match": etag})
    assert (told.status_code, "relay-outcome" in told.headers) == (401, False)
    httpx.delete(another)


def test_a_link_comes_with_a_qr_code(node: Cluster) -> None:
    token = node.token()
    url, headers = node.url(0, token, "x") + "/link", {"accept": "application/json"}
    made = httpx.post(url, params={"qr": "https://r.example/receive#{link}/x"}, headers=headers).json()
    assert made["link"] == httpx.post(url).text.strip()
    expected = segno.make_qr(f"https://r.example/receive#{made['link']}/x", error="l").matrix
    assert [list(map(int, row)) for row in made["qr"]] == [list(row) for row in expected]
    assert "qr" not in httpx.post(url, headers=headers).json()
    for bad in ("", "no link", "{link}" * 13, "x" * 500 + "{link}", "x" * 20_000 + "{link}"):
        refused = httpx.post(url, params={"qr": bad}, headers=headers)
        assert (refused.status_code, refused.json()["code"]) == (400, "bad_qr")
    wrong = httpx.post(node.url(0, "A" * 30, "x") + "/link", params={"qr": "{link}"}, headers=headers)
    assert wrong.status_code == 401
    assert token not in node[0].log()
    assert made["link"] not in node[0].log()
