"""The table of requests: each request, each status, and the line that tells the client what to do next."""

import json
import re
import threading
from collections.abc import Callable
from http import HTTPStatus
from urllib.robotparser import RobotFileParser

import httpx
import pytest

from relay import __version__
from relay.api.routes import NOTHING
from tests.support.cluster import CUT_OFF, Cluster, Curl, curl

JSON = {"accept": "application/json"}
UNKNOWN = "A" * 30


def line_of(answer: httpx.Response) -> str:
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.text.endswith(".\n")
    assert answer.text.count("\n") == 1
    return answer.text


def in_background(call: Callable[[], httpx.Response]) -> Callable[[], httpx.Response]:
    """Start the call in a thread. Return a function that waits for its response and returns it."""
    answers: list[httpx.Response] = []
    thread = threading.Thread(target=lambda: answers.append(call()))
    thread.start()

    def join() -> httpx.Response:
        thread.join(60)
        return answers[0]

    return join


def put(cluster: Cluster, token: str, name: str, data: bytes = b"data", node: int = 0) -> Callable[[], httpx.Response]:
    """Begin an upload, and return once it waits for a downloader."""
    answer = in_background(lambda: httpx.put(cluster.url(node, token, name), content=data, timeout=60))
    cluster.wait_state(token, "waiting")
    return answer


def test_token_as_text(cluster: Cluster) -> None:
    answer = httpx.post(cluster[0].url + "/token")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    assert re.fullmatch(r"[A-Za-z0-9]{30}\n", answer.text)


def test_token_as_json(cluster: Cluster) -> None:
    answer = httpx.post(cluster[0].url + "/token", headers=JSON).json()
    assert set(answer) == {"token", "expires_in"}
    assert answer["expires_in"] == 1200


@pytest.mark.parametrize("method", ["PUT", "POST"])
def test_upload_then_download(cluster: Cluster, token: str, method: str) -> None:
    upload = in_background(
        lambda: httpx.request(
            method, cluster.url(0, token, "a.txt"), content=b"hello", headers={"content-type": "text/x"}, timeout=60
        )
    )
    download = httpx.get(cluster.url(1, token, "a.txt"))
    assert download.status_code == 200
    assert download.content == b"hello"
    assert download.headers["content-length"] == "5"
    assert download.headers["content-type"] == "text/x"
    assert download.headers["content-disposition"] == "attachment; filename=\"a.txt\"; filename*=UTF-8''a.txt"
    assert download.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in download.headers["content-security-policy"]
    assert download.headers["relay-node"]
    answer = upload()
    assert (answer.status_code, answer.text) == (200, "delivered 5 bytes\n")


def test_the_uploader_may_ask_for_json(cluster: Cluster, token: str) -> None:
    upload = in_background(lambda: httpx.put(cluster.url(0, token, "x"), content=b"hello", headers=JSON, timeout=60))
    httpx.get(cluster.url(1, token, "x"))
    assert upload().json() == {"outcome": "complete", "bytes": 5}


def test_a_download_may_come_first(cluster: Cluster, token: str) -> None:
    download = in_background(lambda: httpx.get(cluster.url(1, token, "x") + "?wait=30", timeout=60))
    assert httpx.get(cluster.url(0, token, "x") + "?wait=0").status_code == 404
    upload = httpx.put(cluster.url(0, token, "x"), content=b"hello", timeout=60)
    assert upload.status_code == 200
    assert download().content == b"hello"


def test_several_downloads_may_wait_and_one_is_served(cluster: Cluster, token: str) -> None:
    waiting = [
        in_background(lambda node=node: httpx.get(cluster.url(node, token, "x") + "?wait=4", timeout=60))  # type: ignore[misc]
        for node in (0, 1, 1)
    ]
    assert httpx.put(cluster.url(0, token, "x"), content=b"hello", timeout=60).status_code == 200
    statuses = sorted(answer().status_code for answer in waiting)
    assert statuses[0] == 200
    assert set(statuses[1:]) <= {404, 409}


@pytest.mark.parametrize("method", ["PUT", "POST", "GET", "HEAD", "DELETE"])
@pytest.mark.parametrize("token", [UNKNOWN, "short", "x%7Dy", "token"])
def test_an_unknown_token_is_401(cluster: Cluster, method: str, token: str) -> None:
    answer = httpx.request(method, cluster.url(0, token, "name"), content=b"x" if method in ("PUT", "POST") else None)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    if method != "HEAD":
        assert "POST /token" in line_of(answer)


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_an_unknown_token_itself_is_401(cluster: Cluster, method: str) -> None:
    assert httpx.request(method, cluster.url(0, UNKNOWN)).status_code == 401


@pytest.mark.parametrize(
    "path", ["", ".", "%2e%2e", "a%2Fb", "a/b", "a%5Cb", "a%00", "a%0d%0ab", "%ff", "x" * 256, "%zz"]
)
@pytest.mark.parametrize("method", ["PUT", "GET", "DELETE"])
def test_a_bad_name_is_400(cluster: Cluster, token: str, method: str, path: str) -> None:
    # Use curl because httpx normalizes paths. So does curl, unless it gets --path-as-is.
    url = f"{cluster[0].url}/{token}/{path}"
    done = curl("--path-as-is", "-X", method, "-w", "%{http_code}", url, *(("-d", "x") if method == "PUT" else ()))
    assert done.stdout.endswith(b"400"), done
    assert b"Use PUT or GET /TOKEN/NAME" in done.stdout


def test_a_name_in_use_is_409(cluster: Cluster, token: str) -> None:
    upload = put(cluster, token, "x")
    answer = httpx.put(cluster.url(1, token, "x"), content=b"other")
    assert answer.status_code == 409
    assert "another name" in line_of(answer)
    assert httpx.get(cluster.url(1, token, "x")).content == b"data"
    assert upload().status_code == 200


def test_a_second_download_is_409(cluster: Cluster, token: str) -> None:
    with Curl("-T", "-", cluster.url(0, token, "x"), pipe=True) as source:
        cluster.wait_state(token, "waiting")
        with httpx.stream("GET", cluster.url(1, token, "x")) as first:
            second = httpx.get(cluster.url(0, token, "x"))
            assert second.status_code == 409
            assert "downloading" in line_of(second)
            source.write(b"hello")
            source.close()
            assert first.read() == b"hello"
        assert source.finish() == (0, b"delivered 5 bytes\n")


def test_a_download_without_an_upload_is_404_after_the_wait(cluster: Cluster, token: str) -> None:
    answer = httpx.get(cluster.url(0, token, "x"))
    assert answer.status_code == 404
    assert answer.elapsed.total_seconds() >= 1.9
    assert "?wait=" in line_of(answer)
    answer = httpx.get(cluster.url(0, token, "x") + "?wait=0")
    assert answer.status_code == 404
    assert answer.elapsed.total_seconds() < 1.9


@pytest.mark.parametrize(
    "wait", ["-1", "61", "x", "", "nan", "inf", "1e9", "1_0", "%EF%BC%91", "+1", "%201", ".", "1" * 400]
)
def test_a_bad_wait_is_400(cluster: Cluster, token: str, wait: str) -> None:
    answer = httpx.get(cluster.url(0, token, "x") + f"?wait={wait}")
    assert answer.status_code == 400
    assert "from 0 to 60" in line_of(answer)


def test_an_upload_without_a_download_is_504(cluster: Cluster, token: str) -> None:
    answer = httpx.put(cluster.url(0, token, "x"), content=b"data", timeout=60)
    assert answer.status_code == 504
    assert "within 4 s" in line_of(answer)


def test_an_upload_whose_length_is_too_large_is_413_at_once(cluster: Cluster, token: str) -> None:
    done = curl(
        "-X", "PUT", "-H", "Content-Length: 99999999999", "-H", "Expect: 100-continue", "-d", "x", "--max-time", "20",
        "-w", "%{http_code}", cluster.url(0, token, "x"),
    )  # fmt: skip
    assert done.stdout.endswith(b"413"), done
    assert b"at most 67108864 bytes" in done.stdout


def test_an_upload_that_grows_too_large_is_413_and_never_looks_complete(cluster: Cluster, token: str) -> None:
    def endless() -> "object":
        for _ in range(100):
            yield b"x" * 1024 * 1024

    upload = in_background(lambda: httpx.put(cluster.url(0, token, "x"), content=endless(), timeout=60))  # type: ignore[arg-type]
    cluster.wait_state(token, "waiting")
    done = curl("-o", "/dev/null", cluster.url(1, token, "x"))
    assert done.returncode == CUT_OFF, done
    assert upload().status_code == 413


def test_head_takes_nothing(cluster: Cluster, token: str) -> None:
    assert httpx.head(cluster.url(1, token, "x")).status_code == 404
    upload = put(cluster, token, "x")
    for _ in range(2):
        answer = httpx.head(cluster.url(1, token, "x"))
        assert answer.status_code == 200
        assert answer.headers["content-length"] == "4"
        assert answer.headers["content-disposition"].startswith("attachment")
    assert httpx.get(cluster.url(1, token, "x")).content == b"data"
    assert upload().status_code == 200


def test_delete_ends_a_waiting_upload(cluster: Cluster, token: str) -> None:
    upload = put(cluster, token, "x")
    assert httpx.delete(cluster.url(1, token, "x")).status_code == 204
    answer = upload()
    assert answer.status_code == 410
    assert "cancelled" in line_of(answer)
    assert httpx.delete(cluster.url(1, token, "x")).status_code == 404


@pytest.mark.parametrize(("what", "status"), [("name", b"410"), ("token", b"401")])
def test_delete_ends_a_stream_on_both_sides(cluster: Cluster, token: str, what: str, status: bytes) -> None:
    url = cluster.url(0, token, "x")
    with Curl("-T", "-", "-w", "%{http_code}", url, pipe=True) as source:
        cluster.wait_state(token, "waiting")
        with Curl("-N", cluster.url(1, token, "x")) as download:
            source.write(b"hello")
            assert download.read(5) == b"hello"
            assert httpx.delete(cluster.url(1, token, "x" if what == "name" else "")).status_code == 204
            assert download.finish()[0] == CUT_OFF
        assert source.finish()[1].endswith(status)


def test_a_revoked_token_ends_its_waiting_uploads(cluster: Cluster, token: str) -> None:
    upload = put(cluster, token, "x")
    assert httpx.delete(cluster.url(1, token)).status_code == 204
    assert upload().status_code == 401
    assert httpx.get(cluster.url(0, token)).status_code == 401


def test_get_token_shows_its_life_and_its_transfers_and_does_not_count_as_a_use(cluster: Cluster, token: str) -> None:
    upload = put(cluster, token, "a b")
    before = httpx.get(cluster.url(0, token), headers=JSON).json()
    assert 1400 < before["expires_in"] <= 1500
    assert before["transfers"] == [{"name": "a%20b", "state": "waiting", "length": 4, "delivered": 0}]
    assert httpx.get(cluster.url(0, token), headers=JSON).json()["expires_in"] <= before["expires_in"]
    text = httpx.get(cluster.url(1, token)).text
    assert re.search(r"^waiting\s+4 a%20b$", text, re.MULTILINE)
    httpx.get(cluster.url(1, token, "a b"))
    assert upload().status_code == 200


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_health(cluster: Cluster, path: str) -> None:
    assert httpx.get(cluster[0].url + path).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/token", "OPTIONS, POST"),
        ("PATCH", "/" + UNKNOWN + "/x", "DELETE, GET, HEAD, OPTIONS, POST, PUT"),
        ("PUT", "/" + UNKNOWN, "DELETE, GET, OPTIONS"),
        ("DELETE", "/", "GET, HEAD, OPTIONS"),
    ],
)
def test_a_wrong_method_is_405(cluster: Cluster, method: str, path: str, allow: str) -> None:
    answer = httpx.request(method, cluster[0].url + path)
    assert answer.status_code == 405
    assert answer.headers["allow"] == allow
    assert allow in line_of(answer)


def test_options(cluster: Cluster) -> None:
    answer = httpx.options(cluster[0].url + "/token")
    assert (answer.status_code, answer.headers["allow"]) == (204, "OPTIONS, POST")


@pytest.mark.parametrize("path", NOTHING)
def test_what_browsers_and_robots_ask_for_in_vain_is_404(cluster: Cluster, path: str) -> None:
    assert httpx.get(cluster[0].url + path).status_code == 404


def test_version(cluster: Cluster) -> None:
    assert httpx.get(cluster[0].url + "/version").text == __version__ + "\n"
    assert httpx.get(cluster[0].url + "/version", headers=JSON).json() == {"version": __version__}


def test_robots_are_to_keep_out(cluster: Cluster) -> None:
    answer = httpx.get(cluster[0].url + "/robots.txt")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    rules = RobotFileParser()
    rules.parse(answer.text.splitlines())
    assert not rules.can_fetch("any", cluster[0].url + "/")


def test_browsers_get_no_icon_and_need_not_ask_again(cluster: Cluster) -> None:
    answer = httpx.get(cluster[0].url + "/favicon.ico")
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["cache-control"] == "max-age=86400"


@pytest.mark.parametrize("path", ["/version", "/robots.txt", "/favicon.ico"])
def test_head_of_these_is_as_get(cluster: Cluster, path: str) -> None:
    get, head = httpx.get(cluster[0].url + path), httpx.head(cluster[0].url + path)
    assert (head.status_code, head.content) == (get.status_code, b"")
    assert head.headers.get("content-length") == get.headers.get("content-length")


def test_errors_are_problem_json_if_asked_for(cluster: Cluster) -> None:
    answer = httpx.get(cluster.url(0, UNKNOWN), headers=JSON)
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert (problem["status"], problem["code"]) == (401, "unknown_token")
    assert problem["title"]
    assert problem["detail"].endswith(".")


def test_a_part_of_a_file_is_refused(cluster: Cluster, token: str) -> None:
    done = curl(
        "-X",
        "PUT",
        "-H",
        "Content-Range: bytes 5-9/10",
        "-w",
        "%{http_code}",
        cluster.url(1, token, "y"),
        "-d",
        "12345",
    )
    assert done.stdout.endswith(b"400"), done
    assert b"Content-Range" in done.stdout


def test_an_upload_of_unknown_length_cannot_go_to_http_1_0(cluster: Cluster, token: str) -> None:
    with Curl("-T", "-", cluster.url(0, token, "x"), pipe=True) as source:
        cluster.wait_state(token, "waiting")
        done = curl("--http1.0", "-w", "%{http_code}", cluster.url(1, token, "x"))
        assert done.stdout.endswith(b"505"), done
        source.close()
        assert curl(cluster.url(1, token, "x")).returncode == 0
        assert source.finish() == (0, b"delivered 0 bytes\n")


def test_an_upload_of_known_length_can_go_to_http_1_0(cluster: Cluster, token: str) -> None:
    upload = put(cluster, token, "x")
    done = curl("--http1.0", cluster.url(1, token, "x"))
    assert (done.returncode, done.stdout) == (0, b"data")
    assert upload().status_code == 200


@pytest.mark.parametrize(
    "header", ["Sec-Purpose: prefetch;prerender", "Purpose: prefetch", "X-Moz: prefetch", "Service-Worker: script"]
)
def test_a_browsers_prefetch_takes_nothing(cluster: Cluster, token: str, header: str) -> None:
    upload = put(cluster, token, "x")
    done = curl("-H", header, "-w", "%{http_code}", cluster.url(1, token, "x"))
    assert done.stdout.endswith(b"403"), done
    assert httpx.get(cluster.url(1, token, "x")).content == b"data"
    assert upload().status_code == 200


@pytest.mark.parametrize("value", ["x" * 256, "text/plain\x01"])
def test_a_content_type_that_cannot_be_passed_on_is_400(cluster: Cluster, token: str, value: str) -> None:
    done = curl("-T", "-", "-H", f"Content-Type: {value}", "-w", "%{http_code}", cluster.url(0, token, "x"), stdin=b"x")
    assert done.stdout.endswith(b"400"), done


def test_a_content_type_may_have_255_characters(cluster: Cluster, token: str) -> None:
    value = "x/" + "y" * 253
    upload = in_background(
        lambda: httpx.put(cluster.url(0, token, "x"), content=b"a", headers={"content-type": value}, timeout=60)
    )
    assert httpx.get(cluster.url(1, token, "x")).headers["content-type"] == value
    assert upload().status_code == 200


def test_json_responses_are_valid_json(cluster: Cluster, token: str) -> None:
    for url in (cluster.url(0, token), cluster[0].url + "/"):
        assert isinstance(json.loads(httpx.get(url, headers=JSON).text), dict)


def test_the_response_to_a_refused_upload_arrives_despite_its_body(cluster: Cluster, token: str) -> None:
    upload = put(cluster, token, "x")
    done = curl("-T", "-", "-H", "Expect:", "-w", "%{http_code}", cluster.url(1, token, "x"), stdin=b"x" * 4_000_000)
    assert done.stdout.endswith(b"409"), done
    httpx.get(cluster.url(1, token, "x"))
    assert upload().status_code == HTTPStatus.OK
