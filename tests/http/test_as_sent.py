"""What an upload must be so that it arrives as it was meant, and names that are not what they seem."""

import time
import unicodedata
from typing import cast
from urllib.parse import quote

import httpx
import pytest

from tests.http.test_requests import in_background, line_of, put
from tests.support.cluster import Cluster, curl, id_of
from tests.support.raw import raw
from tests.support.wait import wait_until


def test_a_form_is_refused_with_the_line_that_says_what_to_do(cluster: Cluster, token: str) -> None:
    done = curl("-F", "file=@/etc/hostname", "-w", "%{http_code}", cluster.url(0, token, "x"))
    assert done.stdout.endswith(b"415"), done
    assert b"curl -T" in done.stdout


@pytest.mark.parametrize("coding", ["gzip", "br, gzip", "identity, gzip"])
def test_a_content_coding_is_refused_not_lost(cluster: Cluster, token: str, coding: str) -> None:
    """RFC 9110 sections 8.4 and 12.5.3: 415, with the codings that would have been accepted."""
    headers = {"content-encoding": coding}
    answer = httpx.put(cluster.url(0, token, "x"), content=b"x", headers=headers)
    assert answer.status_code == 415
    assert answer.headers["accept-encoding"] == "identity"
    assert "Content-Encoding" in line_of(answer)


def test_the_identity_coding_changes_nothing(cluster: Cluster, token: str) -> None:
    url, headers = cluster.url(0, token, "x"), {"content-encoding": "identity"}
    upload = in_background(lambda: httpx.put(url, content=b"data", headers=headers, timeout=60))
    answer = httpx.get(cluster.url(1, token, "x") + "?wait=10")
    assert answer.content == b"data"
    assert "content-encoding" not in answer.headers
    assert upload().status_code == 200


@pytest.mark.parametrize("method", ["PUT", "POST", "GET", "HEAD"])
@pytest.mark.parametrize("query", ["n=2", "n=0", "n=", "n=x", "wait=1&n=3", "n=1&n=2"])
def test_several_downloaders_are_refused(cluster: Cluster, token: str, method: str, query: str) -> None:
    content = b"x" if method in ("PUT", "POST") else None
    answer = httpx.request(method, f"{cluster.url(0, token, 'x')}?{query}", content=content)
    assert answer.status_code == 400
    if method != "HEAD":
        assert "without n=" in line_of(answer)


def test_one_downloader_may_be_asked_for_and_unknown_parameters_are_ignored(cluster: Cluster, token: str) -> None:
    url = cluster.url(0, token, "x") + "?n=1&m=2"
    upload = in_background(lambda: httpx.put(url, content=b"data", timeout=60))
    assert httpx.get(cluster.url(1, token, "x") + "?wait=10&n=1&m=3").content == b"data"
    assert upload().status_code == 200


@pytest.mark.parametrize("header", ["service-worker", "sec-fetch-dest"])
def test_a_script_of_a_page_is_refused_and_takes_nothing(cluster: Cluster, token: str, header: str) -> None:
    upload = put(cluster, token, "x")
    answer = httpx.get(cluster.url(1, token, "x"), headers={header: "script"})
    assert answer.status_code == 403
    assert "script" in line_of(answer)
    assert httpx.get(cluster.url(1, token, "x")).content == b"data"
    assert upload().status_code == 200


@pytest.mark.parametrize("method", ["PUT", "GET", "HEAD", "DELETE"])
@pytest.mark.parametrize("control", "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
def test_a_name_cannot_disguise_its_type(cluster: Cluster, token: str, method: str, control: str) -> None:
    content = b"x" if method == "PUT" else None
    url = cluster.url(0, token, quote(f"a{control}fdp.exe"))
    assert httpx.request(method, url, content=content).status_code == 400


@pytest.mark.parametrize(
    ("disposition", "name"),
    [
        ('attachment; filename="report 1.pdf"', "report%201.pdf"),
        ("attachment; filename=x.txt; filename*=UTF-8''%e2%82%ac.txt", "%E2%82%AC.txt"),
        ('attachment; filename="/etc/passwd"', "passwd"),
        # Ignored: the name of the address is the file's.
        ('attachment; filename=".."', "x"),
        ("attachment; filename*=UTF-8''a%E2%80%AEfdp.exe", "x"),
        ('attachment; filename="', "x"),
    ],
)
def test_the_uploaders_file_name_is_the_downloaders_if_it_is_safe(
    cluster: Cluster, token: str, disposition: str, name: str
) -> None:
    url, headers = cluster.url(0, token, "x"), {"content-disposition": disposition, "content-type": "text/x"}
    upload = in_background(lambda: httpx.put(url, content=b"data", headers=headers, timeout=60))
    cluster.wait_state(token, "waiting")
    for method in ("HEAD", "GET"):
        answer = httpx.request(method, cluster.url(1, token, "x"))
        assert answer.headers["content-disposition"].endswith(f"; filename*=UTF-8''{name}")
        assert answer.headers["content-type"] == "text/x"
    assert upload().status_code == 200


def test_a_file_name_without_a_content_type(cluster: Cluster, token: str) -> None:
    url, headers = cluster.url(0, token, "x"), {"content-disposition": "attachment; filename=a.bin"}
    upload = in_background(lambda: httpx.put(url, content=b"data", headers=headers, timeout=60))
    answer = httpx.get(cluster.url(1, token, "x") + "?wait=10")
    assert answer.headers["content-disposition"].endswith("''a.bin")
    assert answer.headers["content-type"] == "application/octet-stream"
    assert upload().status_code == 200


@pytest.mark.parametrize(("sent", "asked"), [("NFD", "NFC"), ("NFC", "NFD")])
def test_a_name_is_found_in_either_form_of_unicode(cluster: Cluster, token: str, sent: str, asked: str) -> None:
    names = {form: quote(unicodedata.normalize(form, "Ålesund é.txt")) for form in ("NFC", "NFD")}
    assert names[sent] != names[asked]
    upload = put(cluster, token, names[sent])
    assert httpx.head(cluster.url(1, token, names[asked])).status_code == 200
    download = httpx.get(cluster.url(1, token, names[asked]))
    assert download.content == b"data"
    assert download.headers["content-disposition"].endswith("''" + names["NFC"])
    assert upload().status_code == 200


def test_head_waits_if_it_is_told_to_and_the_claim_wakes_it(cluster: Cluster, token: str) -> None:
    head = in_background(lambda: httpx.head(cluster.url(1, token, "x") + "?wait=30", timeout=60))
    time.sleep(0.5)
    begun = time.monotonic()
    upload = in_background(lambda: httpx.put(cluster.url(0, token, "x"), content=b"data", timeout=60))
    answer = head()
    # Without the wake-up, it would look again only after 30 s.
    assert time.monotonic() - begun < 15
    assert (answer.status_code, answer.headers["content-length"]) == (200, "4")
    _wait_for_no_record(cluster, token)
    assert httpx.get(cluster.url(1, token, "x")).content == b"data"
    assert upload().status_code == 200


def test_head_waits_in_vain_and_leaves_no_record(cluster: Cluster, token: str) -> None:
    url = cluster.url(1, token, "x")
    before = float(httpx.get(cluster.url(0, token), headers={"accept": "application/json"}).json()["expires_in"])
    answer = httpx.head(url + "?wait=1", timeout=60)
    assert answer.status_code == 404
    assert answer.elapsed.total_seconds() >= 0.9
    assert httpx.head(url).elapsed.total_seconds() < 0.9
    _wait_for_no_record(cluster, token)
    after = float(httpx.get(cluster.url(0, token), headers={"accept": "application/json"}).json()["expires_in"])
    assert after <= before  # not a use of the token


def test_a_head_that_leaves_while_it_waits_leaves_no_record(cluster: Cluster, token: str) -> None:
    url = cluster.url(0, token, "x")
    with raw(url, f"HEAD /{token}/x?wait=30 HTTP/1.1\r\nHost: x\r\n\r\n".encode()):
        if cluster.redis is not None:
            wait_until(lambda: _records(cluster, token), "the record of the waiting HEAD")
    _wait_for_no_record(cluster, token)


def test_a_head_with_a_bad_wait_is_400(cluster: Cluster, token: str) -> None:
    assert httpx.head(cluster.url(0, token, "x") + "?wait=61").status_code == 400


def _records(cluster: Cluster, token: str) -> list[bytes]:
    """Return the fields that record which nodes wait for a name of the token."""
    assert cluster.redis is not None
    (key,) = [key for key in cluster.keys("token") if id_of(token) in key]
    fields = cast("list[bytes]", cluster.redis.hkeys(key))
    return [field for field in fields if field.startswith(b"wanted:")]


def _wait_for_no_record(cluster: Cluster, token: str) -> None:
    if cluster.redis is not None:
        wait_until(lambda: not _records(cluster, token), "the record of the wait to be withdrawn")
