"""Random requests: none may cause a 500, a traceback, or a key of an unexpected form in Redis.

RELAY_FUZZ sets how many requests are tried in this process; a tenth as many are sent over a socket. RELAY_FUZZ_SEED
sets the seed.
"""

import asyncio
import logging
import os
import random
import re
import socket
from typing import Any

import pytest

from relay.access import Link, Right, Token
from relay.app import create_app
from relay.settings import Settings
from tests.support.cluster import Cluster, NodeProcess, first_traceback, id_of

COUNT = int(os.environ.get("RELAY_FUZZ", "3000"))
SEED = int(os.environ.get("RELAY_FUZZ_SEED", "0")) or random.SystemRandom().randrange(1, 2**32)

#: Pieces from which names, tokens, queries and header values are built.
PIECES = [
    *b"a b.txt .. . ... / // \\ %2f %2F %5c %2e%2e %252e %00 %0a %0d%0a %7f %c2%85 %ff %c0%af %ed%a0%80".split(),
    *b"% %z %zz : { } {} * ? & = ; , # @ ~ - _ + ' \" < > | $ ` ! ( ) [ ] ^ \\0 transfer: wanted: relay:".split(),
    *b"token healthz wait=1 wait= wait=1_0 wait=-1 wait=1e9 wait=nan wait=\xd9\xa1 bytes=0- bytes=5-".split(),
    *b"bytes=-1 bytes=a 0 -1 1 application/json text/html */* q=0 ;q=1 ;q=x gzip chunked Bearer Basic Og==".split(),
    *b"127.0.0.1 ::1 fe80::1%x".split(),
    b"\xff\xfe", b"\xc3\xa9", b"%F0%9F%98%80", b"\x01", b"\x7f", b"\t", b" ", b"A" * 30, b"A" * 300, b"%41" * 90,
    b"prefetch", b"script", b"https://page.example", b"null", b"100-continue",
]  # fmt: skip
HEADERS = [
    *(b"accept accept-encoding authorization content-type content-range range expect host origin referer".split()),
    *(b"access-control-request-method x-forwarded-for x-forwarded-proto forwarded via sec-purpose purpose".split()),
    *(b"service-worker upgrade connection te trailer cookie if-none-match if-range x".split()),
]
METHODS = ["GET", "GET", "PUT", "POST", "HEAD", "DELETE", "OPTIONS", "PATCH", "TRACE", "PROPFIND"]
#: Every key that the relay may write. Names are percent-encoded in it, so that no character of a name can separate
#: parts of the key.
KEY = re.compile(
    r"relay:(token:\{[A-Za-z0-9]{8}\}|revoked:\{[A-Za-z0-9]{8}\}"
    r"|(transfer|chunks|acks):\{[A-Za-z0-9]{8}\}:[A-Za-z0-9._~%-]+(:[0-9a-f]{16})?"
    r"|node:here-[0-9a-f]+|nodes|tokens|uploads:here-[0-9a-f]+|inbox:here-[0-9a-f]+|rate:(tokens|failures):[0-9a-f.:/unkow]+)"
)


class Inputs:
    """Generates random requests that are partly valid, so that many of them get beyond the first check."""

    def __init__(self, tokens: list[str]) -> None:
        self.random = random.Random(SEED)
        self.tokens = [token.encode() for token in tokens]

    def some(self, most: int = 4) -> bytes:
        return b"".join(self.random.choices(PIECES, k=self.random.randint(0, most)))

    def path(self) -> bytes:
        kind = self.random.random()
        token = self.random.choice(self.tokens) if kind < 0.7 else self.some()
        if kind < 0.2:  # a link to one of the names, which other requests may use
            link = Link.make(Token.parse(token).access, self.random.choice([*Right]), "a")
            return b"/" + str(link).encode() + self.random.choice([b"/a", b"/a", b"/a/link", b"", b"/" + self.some()])
        if kind > 0.98:
            return self.random.randbytes(self.random.randint(0, 40))
        if kind > 0.96:
            return self.random.choice([b"/", b"/token", b"/token/", b"//", b"*", b"", b"/metrics", b"/openapi.json"])
        return b"/" + token + (b"/" + self.some() if self.random.random() < 0.9 else b"")

    def headers(self) -> list[tuple[bytes, bytes]]:
        found = [(self.random.choice(HEADERS), self.some()) for _ in range(self.random.randint(0, 4))]
        length = self.random.choice([None, b"0", b"3", b"9" * 18])
        return found + ([(b"transfer-encoding", b"chunked")] if length is None else [(b"content-length", length)])

    def scope(self) -> dict[str, Any]:
        raw = self.path()
        return {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": self.random.choice(["1.1", "1.0"]),
            "method": self.random.choice(METHODS),
            "path": raw.decode("latin-1"),
            "raw_path": raw,
            "query_string": self.some(),
            "headers": self.headers(),
            "client": (self.random.choice(["127.0.0.1", "::1", "x"]), 1),
            "scheme": "http",
        }


async def test_no_input_is_a_500(caplog: pytest.LogCaptureFixture) -> None:
    settings = Settings(
        redis_url="", node="here", upload_wait=0.01, download_wait=0, download_wait_max=0.02, token_secret=""
    )
    app = create_app(settings)
    statuses: dict[int, int] = {}
    caplog.set_level(logging.WARNING)
    async with app.router.lifespan_context(app):
        relay = app.relay
        tokens = [str(await relay.make_token()) for _ in range(20)]
        inputs = Inputs(tokens)

        async def ask() -> None:
            scope, sent = inputs.scope(), list[dict[str, Any]]()

            async def receive() -> dict[str, Any]:
                await asyncio.sleep(0)
                return {"type": "http.request", "body": b"abc", "more_body": False}

            async def send(message: dict[str, Any]) -> None:
                sent.append(message)

            await app(scope, receive, send)  # type: ignore[arg-type]
            assert sent, f"no response, seed {SEED}: {scope}"
            status, headers = sent[0]["status"], sent[0]["headers"]
            assert status != 500, f"seed {SEED}: {scope}"
            assert not [pair for pair in headers if re.search(rb"[\x00-\x08\x0a-\x1f\x7f]", b"".join(pair))], scope
            assert dict(headers)[b"x-content-type-options"] == b"nosniff"
            statuses[status] = statuses.get(status, 0) + 1

        for _ in range(COUNT // 20):
            await asyncio.gather(*(ask() for _ in range(20)))
            if [1 for token in inputs.tokens if await relay.store.tokens.read(token=id_of(token.decode())) is None]:
                inputs.tokens = [str(await relay.make_token()).encode() for _ in range(20)]
        keys = [key.decode() async for key in relay.store.commands.redis.scan_iter("*")]
    assert not [key for key in keys if not KEY.fullmatch(key)], f"seed {SEED}"
    assert not [record for record in caplog.records if record.exc_info], f"seed {SEED}"
    print(f"seed {SEED}: {dict(sorted(statuses.items()))}")
    assert {200, 204, 400, 401, 403, 404, 405, 504} <= set(statuses), statuses


def mutate(request: bytes, chance: random.Random) -> bytes:
    """Return the request with some of its bytes changed, removed, doubled or inserted."""
    data = bytearray(request)
    for _ in range(chance.randint(1, 6)):
        at, end = sorted(chance.choices(range(len(data) + 1), k=2))
        match chance.randrange(5):
            case 0:
                data[at : at + 1] = chance.randbytes(1)
            case 1:
                del data[at : min(end, at + 8)]
            case 2:
                data[at:at] = chance.choice(PIECES)
            case 3:
                data[at:at] = data[at : min(end, at + 40)]
            case _:
                data[at:at] = chance.choice([b"\r\n", b"\n", b"\r", b"\0", b": ", b" HTTP/1.1", b"0\r\n\r\n"])
    return bytes(data)


def test_no_bytes_on_the_wire_cause_a_traceback() -> None:
    node = NodeProcess(
        "alone",
        settings={
            "upload_wait": 0.01,
            "download_wait": 0,
            "download_wait_max": 0.02,
            "header_timeout": 0.2,
            "token_rate": "",
            "failure_rate": "",
        },
    )
    cluster, chance = Cluster([node], None, "relay"), random.Random(SEED)
    statuses: set[bytes] = set()
    tokens = [cluster.token() for _ in range(20)]
    for _ in range(COUNT // 10):
        token = chance.choice(tokens)
        request = chance.choice(
            [
                b"GET /%s/x?wait=0 HTTP/1.1\r\nHost: x\r\nAccept: application/json\r\n\r\n",
                b"PUT /%s/x HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Type: a/b\r\n\r\nhello",
                b"PUT /%s/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
                b"DELETE /%s/x HTTP/1.0\r\nConnection: close\r\n\r\nPOST /token HTTP/1.1\r\nHost: x\r\n\r\n",
            ]
        )
        with socket.create_connection(("127.0.0.1", node.port), timeout=30) as client:
            client.sendall(mutate(request % token.encode(), chance))
            client.shutdown(socket.SHUT_WR)
            try:
                answer = client.recv(65536)
            except ConnectionError:
                continue
        if answer:
            statuses |= set(re.findall(rb"^HTTP/1\.1 (\d+) ", answer))
    assert node.is_ready()
    cluster.stop()
    assert not (found := first_traceback(node.log())), f"seed {SEED}:\n{found}"
    assert "a bug" not in node.log(), f"seed {SEED}"
    assert b"500" not in statuses, f"seed {SEED}"
    assert {b"400", b"401"} <= statuses, f"seed {SEED}: {statuses}"
