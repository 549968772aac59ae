"""Who may do what: every request with every kind of token and link."""

from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from relay.access import Token
from tests.support.cluster import Cluster, Curl, alone, over_redis
from tests.support.haproxy import HAProxy
from tests.support.redis import RedisServer

#: The requests, each with the statuses for: the token, a link to receive, a link to send.
REQUESTS = {
    ("GET", "/x?wait=0"): (404, 404, 403),
    ("HEAD", "/x"): (404, 404, 403),
    ("PUT", "/x"): (400, 403, 400),
    ("POST", "/x"): (400, 403, 400),
    ("DELETE", "/x"): (404, 403, 403),
    ("POST", "/x/link"): (200, 401, 401),
    ("HEAD", "/x/0123456789abcdef" + "A" * 22): (404, 403, 404),
    ("PATCH", "/x/0123456789abcdef" + "A" * 22): (400, 403, 400),
    ("DELETE", "/x/0123456789abcdef" + "A" * 22): (404, 403, 404),
    ("GET", ""): (200, 401, 401),
    ("DELETE", ""): (204, 401, 401),
}
PARTIAL = {"Content-Type": "application/partial-upload", "Upload-Complete": "?1", "Upload-Offset": "0"}
#: What makes an upload that may begin end at once, without waiting for anybody.
BAD = {"PUT": {"Content-Range": "bytes 0-0/1"}, "PATCH": PARTIAL | {"Upload-Offset": "x"}}
BAD["POST"] = BAD["PUT"]


class Words:
    """What may stand in the place of the token."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.token = self._post("/token")
        self.receive, self.send = self.link("x"), self.link("x", "send")
        token = Token.parse(self.token.encode())
        other = "B" if token.secret[-1] == "A" else "A"
        revoked = self._post("/token")
        gone = self._post(f"/{revoked}/x/link")
        assert httpx.delete(f"{url}/{revoked}").status_code == 204
        changed = "0" if self.receive[-1] == "1" else "1"
        self.wrong = {
            "the secret of nobody": self.token[:-1] + other,
            "the secret of another token": token.id + Token.parse(self._post("/token").encode()).secret,
            "an id alone": token.id,
            "a link to another name": self.link("y"),
            "a link to another name to send": self.link("y", "send"),
            "a link with another last digit": self.receive[:-1] + changed,
            "a link with the other right": token.id + "s" + self.receive.removeprefix(token.id + "r"),
            "a revoked token": revoked,
            "a link of a revoked token": gone,
        }

    def link(self, name: str, right: str = "receive") -> str:
        return self._post(f"/{self.token}/{name}/link?for={right}")

    def _post(self, path: str) -> str:
        answer = httpx.post(self._url + path)
        assert answer.status_code == 200, answer.text
        return answer.text.strip()


@contextmanager
def node(kind: str, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    settings = {"failure_rate": "", "token_rate": ""}
    if kind == "embedded":
        with alone(**settings) as cluster:
            yield cluster
    else:
        server: RedisServer = request.getfixturevalue("redis_server")
        with over_redis(server, "ab", **settings) as cluster:
            yield cluster


@pytest.fixture(scope="module", params=["embedded", "Redis", "HAProxy"])
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with node(request.param, request) as cluster:
        if request.param == "HAProxy":
            with HAProxy(cluster, tmp_path_factory.mktemp("haproxy")) as balancer:
                yield balancer.url
        else:
            yield cluster[0].url


def status(url: str, method: str, word: str, path: str, *, is_bad: bool = False) -> int:
    content = b"x" if method in ("PUT", "POST", "PATCH") and not path.endswith("/link") else None
    headers = PARTIAL if method == "PATCH" else {}
    if content and is_bad:
        headers = BAD[method]
    return httpx.request(method, f"{url}/{word}{path}", content=content, headers=headers).status_code


def test_every_request_with_every_word(url: str) -> None:
    words, found = Words(url), {}
    for method, path in sorted(REQUESTS, key=lambda request: request == ("DELETE", "")):
        for kind, word in words.wrong.items():
            assert status(url, method, word, path) == 401, (method, path, kind)
        # The token comes last, because DELETE revokes it.
        receive, send = (status(url, method, word, path, is_bad=True) for word in (words.receive, words.send))
        found[method, path] = (status(url, method, words.token, path, is_bad=True), receive, send)
    assert found == REQUESTS
    assert status(url, "GET", words.receive, "/x?wait=0") == 401  # its token is revoked now


def test_a_wrong_secret_is_answered_as_an_unknown_token(url: str) -> None:
    words = Words(url)
    unknown = httpx.get(f"{url}/{'A' * 30}/x")
    for word in words.wrong.values():
        answer = httpx.get(f"{url}/{word}/x")
        assert answer.content == unknown.content
        assert answer.headers.keys() == unknown.headers.keys()


def test_links_carry_a_file(url: str, tmp_path) -> None:  # type: ignore[no-untyped-def]
    words, file = Words(url), tmp_path / "file"
    file.write_bytes(b"the file")
    with Curl("-T", file, f"{url}/{words.send}/x") as upload, Curl(f"{url}/{words.receive}/x?wait=20") as download:
        assert download.finish() == (0, b"the file")
        assert upload.finish() == (0, b"delivered 8 bytes\n")
