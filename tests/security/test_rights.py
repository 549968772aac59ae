"""Who may do what: every request with every kind of token and link."""

import random
import statistics
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from relay.access import ID_LENGTH, Token
from tests.support.cluster import Cluster, Curl, alone, over_redis
from tests.support.haproxy import HAProxy
from tests.support.redis import RedisServer
from tests.support.secrecy import Secrecy
from tests.support.wait import wait_until

UPLOAD = "0123456789abcdef" + "A" * 22
#: Headers that let a request reach the step in which its secret is compared, and end there without waiting for anybody.
ANY = {"If-Match": "*"}
PART = {"Content-Type": "application/partial-upload", "Upload-Complete": "?1", "Upload-Offset": "0"}
BEGIN = {"Upload-Complete": "?0", "Upload-Draft-Interop-Version": "8"}


class Asked(NamedTuple):
    """A request about a word, which stands in the place of the token."""

    method: str
    path: str
    headers: Mapping[str, str] = {}
    body: bytes = b""

    def status(self, url: str, word: str) -> int:
        return httpx.request(
            self.method, f"{url}/{word}{self.path}", headers=self.headers, content=self.body or None
        ).status_code


#: The requests, each with the statuses for: the token, a link to receive, a link to send. A link opens a name only, so
#: it gets 401 if the path has none. Each other word gets 401.
REQUESTS = [
    (Asked("GET", "/x?wait=0"), (404, 404, 403)),
    (Asked("GET", "/x?wait=0", ANY), (404, 404, 403)),
    (Asked("GET", "/x?wait=0", {"Range": "bytes=5-"}), (404, 404, 403)),
    (Asked("HEAD", "/x"), (404, 404, 403)),
    (Asked("HEAD", "/x?wait=0.1"), (404, 404, 403)),
    (Asked("PUT", "/x", ANY, b"x"), (412, 403, 412)),
    (Asked("POST", "/x", ANY, b"x"), (412, 403, 412)),
    (Asked("DELETE", "/x"), (404, 403, 403)),
    (Asked("DELETE", "/x", ANY), (404, 403, 403)),
    (Asked("POST", "/x/link"), (200, 401, 401)),
    (Asked("POST", "/x/link?for=send"), (200, 401, 401)),
    (Asked("HEAD", f"/x/{UPLOAD}"), (404, 403, 404)),
    (Asked("PATCH", f"/x/{UPLOAD}", PART, b"x"), (404, 403, 404)),
    (Asked("DELETE", f"/x/{UPLOAD}"), (404, 403, 404)),
    (Asked("GET", ""), (200, 401, 401)),
    (Asked("DELETE", "", {"If-Match": '"x"'}), (412, 401, 401)),
    # The link to send is tried before the token, so its upload has the name.
    (Asked("PUT", "/x", BEGIN), (409, 403, 201)),
    (Asked("POST", "/x", BEGIN), (409, 403, 409)),
    # Last, because it revokes the token.
    (Asked("DELETE", ""), (204, 401, 401)),
]


class Front(NamedTuple):
    """Where a cluster is reached, and what looks after its secrets."""

    url: str
    secrecy: Secrecy


class Words:
    """What may stand in the place of the token."""

    def __init__(self, front: "Front") -> None:
        self._url, self._secrecy = front
        self.token = self._post("/token")
        self.receive, self.send = self.link("x"), self.link("x", "send")
        token = Token.parse(self.token.encode())
        other = "B" if token.secret[-1] == "A" else "A"
        revoked = self._post("/token")
        gone = self._post(f"/{revoked}/x/link")
        assert httpx.delete(f"{self._url}/{revoked}").status_code == 204
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
        word = answer.text.strip()
        if path == "/token":
            self._secrecy.tokens.append(word)
        else:
            self._secrecy.others.append(word[ID_LENGTH + 1 :])
        return word


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
def front(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    with node(request.param, request) as cluster:
        if request.param == "HAProxy":
            with HAProxy(cluster.nodes, tmp_path_factory.mktemp("haproxy")) as balancer:
                yield Front(balancer.url, cluster.secrecy)
        else:
            yield Front(cluster[0].url, cluster.secrecy)


def test_every_request_with_every_word(front: Front) -> None:
    url, words = front.url, Words(front)
    for asked, statuses in REQUESTS:
        for kind, word in words.wrong.items():
            assert asked.status(url, word) == 401, (asked, kind)
        receive, send = asked.status(url, words.receive), asked.status(url, words.send)
        assert (asked.status(url, words.token), receive, send) == statuses, asked
    assert REQUESTS[0][0].status(url, words.receive) == 401  # its token is revoked now


def test_words_that_have_expired_are_unknown() -> None:
    with alone(token_life=2, failure_rate="", token_rate="") as cluster:
        url = cluster[0].url
        words = Words(Front(url, cluster.secrecy))
        wait_until(lambda: httpx.get(f"{url}/{words.token}").status_code == 401, "the token to expire")
        for asked, _ in REQUESTS:
            for word in (words.token, words.receive, words.send):
                assert asked.status(url, word) == 401, asked


def test_a_wrong_secret_is_answered_as_an_unknown_token(front: Front) -> None:
    url, words = front.url, Words(front)
    unknown = httpx.get(f"{url}/{'A' * 30}/x")
    for word in words.wrong.values():
        answer = httpx.get(f"{url}/{word}/x")
        assert answer.content == unknown.content
        assert answer.headers.keys() == unknown.headers.keys()


def test_links_carry_a_file(front: Front, tmp_path: Path) -> None:
    url, words, file = front.url, Words(front), tmp_path / "file"
    file.write_bytes(b"the file")
    with Curl("-T", file, f"{url}/{words.send}/x") as upload, Curl(f"{url}/{words.receive}/x?wait=20") as download:
        assert download.finish() == (0, b"the file")
        assert upload.finish() == (0, b"delivered 8 bytes\n")


def test_the_time_of_an_answer_tells_nothing_of_the_secret(redis_server: RedisServer) -> None:
    """What is nearly right takes as long as what is all wrong, within the noise of this machine."""
    with over_redis(redis_server, "a", failure_rate="", token_rate="") as cluster, httpx.Client() as client:
        words = Words(Front(cluster[0].url, cluster.secrecy))
        pairs = [
            (words.wrong["the secret of nobody"], Token.parse(words.token.encode()).id + "z" * 22),
            (words.wrong["the secret of nobody"], "A" * 30),
            (words.wrong["a link with another last digit"], words.receive[:9] + "0" * 32),
            (words.wrong["a link with another last digit"], "A" * 8 + "r" + "0" * 32),
        ]

        def seconds(word: str) -> float:
            begun = time.perf_counter()
            assert client.head(f"{cluster[0].url}/{word}/x").status_code == 401
            return time.perf_counter() - begun

        def ratio(near: str, far: str) -> float:
            """Return how much longer one takes than the other, as the median of 200 pairs, each in random order."""
            taken: dict[str, list[float]] = {near: [], far: []}
            for _ in range(200):
                for word in random.sample([near, far], 2):
                    taken[word].append(seconds(word))
            times = [statistics.median(each) for each in taken.values()]
            return max(times) / min(times)

        for near, far in pairs:
            found = [ratio(near, far)]
            while min(found) > 1.2 and len(found) < 5:
                found.append(ratio(near, far))
            print(f"{near[:8]}… and {far[:8]}…: {found}")
            assert min(found) <= 1.2
