"""Look for secrets where they must not be: in Redis, logs, pages, metrics, and the list of processes.

tests/conftest.py looks after every test into Redis and the logs of the clusters that run, and each cluster looks at all
of it before it stops.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import httpx
import psutil
import redis

from relay.access import ID_LENGTH, Token

if TYPE_CHECKING:
    from tests.support.cluster import Cluster, NodeProcess

#: What looks like a whole token, a link, or the address of a resumable upload. A name of a test may be as long as a
#: token, but hardly has letters of both cases and digits.
_LOOKS_SECRET = re.compile(
    r"(?<![A-Za-z0-9])(?:(?=[a-z]*[A-Z0-9])(?=[A-Z]*[a-z0-9])(?=[A-Za-z]*[0-9])[A-Za-z0-9]{30}"
    r"|[A-Za-z0-9]{8}[rs][0-9a-f]{32}|[0-9a-f]{16}[A-Za-z0-9]{22})(?![A-Za-z0-9])"
)
#: What may stand right before a secret and ends with a letter or digit: the escapes of URLs and of Python.
_ESCAPE = re.compile(r"%[0-9A-Fa-f]{2}|\\x[0-9a-f]{2}|\\[nrt]")
#: What a person or a program may ask a node for, each with its `Accept`.
_PAGES = (("/", "text/plain"), ("/", "application/json"), ("/", "text/html"), ("/metrics", "text/plain"))
#: Seconds that a page may take. A node may be stopped or without Redis, and then there is no page to look at.
_PATIENCE = 2.0


class Secrecy:
    """Looks after one cluster. `tokens` are those that its test has made, as far as they are known."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.tokens: list[str] = []
        #: The signatures of links that its test has made, and other secrets without an id.
        self.others: list[str] = []
        #: How many characters of each node's log have been looked at.
        self._seen: WeakKeyDictionary[NodeProcess, int] = WeakKeyDictionary()

    def check(self, *, pages: bool = False) -> None:
        """Fail if there is a secret in Redis or in what was logged since the last check; or on pages, if asked."""
        for node in self._cluster.nodes:
            log = node.log()
            self._check(f"the log of {node.name}", log[self._seen.get(node, 0) :], with_digests=True)
            self._seen[node] = len(log)
            if pages and node.process.poll() is None:
                self._check("the list of processes", " ".join(psutil.Process(node.process.pid).cmdline()))
                for path, page in _pages_of(node):
                    self._check(path, page, with_digests=True)
        for key, value in self._stored():
            self._check(f"{key} in Redis", f"{key} {value}")

    def _check(self, place: str, text: str, *, with_digests: bool = False) -> None:
        for token in self.tokens:
            secret = token[ID_LENGTH:]
            assert secret not in text, f"{place} has the secret of the token {token[:ID_LENGTH]}"
            if with_digests:
                proof = Token(token[:ID_LENGTH], secret).access.proof
                assert proof not in text, f"{place} has the digest of the token {token[:ID_LENGTH]}"
        for other in self.others:
            assert other not in text, f"{place} has the secret {other}"
        found = _LOOKS_SECRET.search(_ESCAPE.sub(" ", text))
        assert found is None, f"{place} has what looks like a secret: {found}"

    def _stored(self) -> Iterator[tuple[str, str]]:
        """Yield the keys of the cluster and their values, but not the bytes of files."""
        store = self._cluster.redis
        if store is None:
            return
        with contextlib.suppress(redis.RedisError):  # a test may have taken it away
            found = list(store.scan_iter(f"{self._cluster.prefix}:*", count=1000))
            yield from ((key.decode(), "") for key in found)
            keys = [key for key in found if b":chunks:" not in key]
            yield from zip((key.decode() for key in keys), _values(store, keys), strict=True)


def _values(store: redis.Redis, keys: Iterable[bytes]) -> list[str]:
    pipe = store.pipeline(transaction=False)
    for key in keys:
        pipe.type(key)
    kinds: list[bytes] = pipe.execute()
    for key, kind in zip(keys, kinds, strict=True):
        if kind == b"hash":
            pipe.hgetall(key)
        elif kind == b"zset":
            pipe.zrange(key, 0, -1)
        elif kind == b"stream":
            pipe.xrange(key)
        else:
            pipe.get(key)
    replies: list[Any] = pipe.execute(raise_on_error=False)
    return [repr(reply) for reply in replies]


def _pages_of(node: NodeProcess) -> Iterator[tuple[str, str]]:
    with contextlib.suppress(httpx.HTTPError), httpx.Client(verify=False, timeout=_PATIENCE) as client:
        for path, accept in _PAGES:
            yield f"{accept} of {path}", client.get(node.url + path, headers={"Accept": accept}).text
