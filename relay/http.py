"""Thin handlers: parse, call, answer.  The addresses are in `app`.

A handler is an async function of an `Exchange`; whatever `Problem` it raises is rendered in `endpoint`.
"""

import asyncio
import contextlib
import json
import logging
import math
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from urllib.parse import parse_qs

from starlette.datastructures import Headers
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from relay.connection import Connection
from relay.credentials import presented
from relay.delivery import Delivery
from relay.errors import Error, Problem
from relay.flow import Bytes
from relay.headers import SAFE_HEADERS, cors_headers, is_media_type, is_prefetch, wants_json
from relay.logs import note
from relay.names import content_disposition, encode_name, parse_name, parse_token
from relay.openapi import document
from relay.protocol import DRAIN_MOST, DRAIN_SECONDS
from relay.rates import counted_as
from relay.service import Relay
from relay.states import Outcome
from relay.store import Transfer, transfers_in
from relay.transfer import ClientGone
from relay.work import Phase

log = logging.getLogger("relay.http")

#: Bytes that a client may not have acknowledged yet when the last step of its download is taken, which nobody can
#: cancel: so few that a client which has stopped reading is not in that step for minutes.
_NEAR = 64 * 1024
#: What `?wait=` takes; float() would also take `1_0`, `nan`, `１` and blanks.
_SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]{0,9})?")


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request and the means to answer it."""

    relay: Relay
    scope: Scope
    receive: Receive
    send: Send
    #: The methods that the address takes, as in `Allow`.
    allow: str

    @property
    def headers(self) -> Headers:
        return Headers(scope=self.scope)

    @property
    def client(self) -> Connection:
        return Connection.of(self.scope)

    @property
    def segments(self) -> list[bytes]:
        return segments_of(self.scope)

    def token(self) -> str:
        return parse_token(self.segments[0])

    def token_and_name(self) -> tuple[str, str]:
        """The token, and the name as it stands in keys.  Raises Problem."""
        if len(self.segments) > 2:  # noqa: PLR2004 (token and name)
            raise Problem(Error.BAD_NAME, why="The name contains a slash.")
        name = encode_name(parse_name(self.segments[1]))
        return self.token(), name

    @property
    def address(self) -> str:
        """The client's address as it is counted: behind trusted proxies, the one that they say it has."""
        host, _ = self.scope.get("client") or ("", 0)
        return counted_as(host)

    def wants_json(self) -> bool:
        return wants_json(",".join(self.headers.getlist("accept")))

    def common_headers(self) -> dict[str, str]:
        """The headers every answer has."""
        origins = self.relay.settings.cors_origins.split(",") if self.relay.settings.cors_origins else ()
        cors = cors_headers(origins, self.headers, methods=self.allow)
        return SAFE_HEADERS | cors | {"relay-node": self.relay.node.id}

    async def answer(self, response: Response) -> None:
        """Sends a whole answer with the headers every answer has."""
        for name, value in self.common_headers().items():
            response.headers.setdefault(name, value)
        await response(self.scope, self.receive, self.send)

    async def text(self, line: str, *, status: int = 200) -> None:
        await self.answer(PlainTextResponse(line + "\n", status_code=status))


def segments_of(scope: Scope) -> list[bytes]:
    """The path's segments, at least one, still percent-encoded: a %2F must not become a slash."""
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    return raw.partition(b"?")[0].split(b"/")[1:] or [b""]  # none in `OPTIONS *`


Handler = Callable[[Exchange], Awaitable[None]]


def endpoint(relay: Relay, methods: dict[str, Handler]) -> ASGIApp:
    """An ASGI app that picks the handler by method and renders what it raises."""
    allow = ", ".join(sorted({*methods, "OPTIONS"}))

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange(relay, scope, receive, send, allow)
        try:
            if scope["method"] == "OPTIONS":
                await exchange.answer(Response(status_code=204, headers={"allow": allow}))
            elif (handler := methods.get(scope["method"])) is None:
                raise Problem(Error.WRONG_METHOD, allow=allow)
            else:
                await handler(exchange)
        except ClientGone:
            await exchange.client.cut()
        except Problem as raised:
            problem = await exchange.relay.limit_failures(raised, address=exchange.address)
            await _render(exchange, problem, {"allow": allow} if problem.error is Error.WRONG_METHOD else {})
        except Exception:
            log.exception("a bug: %s was not answered", scope["method"])
            if exchange.client.is_answering:
                await exchange.client.cut()
            else:
                await _render(exchange, Problem(Error.INTERNAL), {})

    return app


async def _render(exchange: Exchange, problem: Problem, headers: dict[str, str]) -> None:
    """The one place where an error becomes an answer."""
    spec = problem.error.value
    note(reason=problem.error.type)
    exchange.relay.metrics.rejections.labels(problem.error.type).inc()
    if problem.retry_after is not None:
        headers["retry-after"] = str(problem.retry_after)
    if spec.status == 401:  # noqa: PLR2004 (RFC 9110 section 15.5.2 wants a challenge with every 401)
        # Browsers know only Basic.  They must not ask their users for a token, which stands in the address.
        scheme = "Basic" if problem.error is Error.OPERATORS_ONLY else "Bearer"
        headers["www-authenticate"] = f'{scheme} realm="relay"'
    if exchange.wants_json():
        body = {"type": "about:blank", "code": problem.error.type, "title": spec.title, "status": spec.status}
        content = json.dumps(body | {"detail": problem.line}).encode() + b"\n"
        media = "application/problem+json"
    else:
        content, media = problem.line.encode() + b"\n", "text/plain; charset=utf-8"
    answer = Response(content, status_code=spec.status, media_type=media, headers=headers)
    if exchange.scope["method"] in ("PUT", "POST"):
        await _answer_early(exchange, answer)
    else:
        await exchange.answer(answer)


async def _answer_early(exchange: Exchange, answer: Response) -> None:
    """Answers a request whose body may still be coming.

    The answer goes out whole, then a bounded part of the body is read, because closing with bytes unread
    makes the client's kernel throw the answer away; then the connection closes.
    """
    answer.headers["connection"] = "close"

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            message = {**message, "more_body": True}
        await exchange.send(message)

    await replace(exchange, send=send).answer(answer)
    read = 0
    with contextlib.suppress(ClientGone, TimeoutError):
        async with asyncio.timeout(DRAIN_SECONDS):
            async for piece in _body(exchange.receive):
                read += len(piece)
                if read > DRAIN_MOST:
                    break
    await exchange.send({"type": "http.response.body", "body": b"", "more_body": False})


async def _body(receive: Receive) -> AsyncIterator[bytes]:
    """The request's body, as it arrives.  Raises ClientGone where it breaks off."""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        yield message.get("body", b"")
        if not message.get("more_body", False):
            return


# -- tokens ------------------------------------------------------------------------------------------------


async def make_token(exchange: Exchange) -> None:
    relay = exchange.relay
    await relay.admit(presented(exchange.headers), address=exchange.address)
    token = await relay.make_token()
    if exchange.wants_json():
        life = int(relay.settings.token_life)
        await exchange.answer(JSONResponse({"token": token, "expires_in": life}))
    else:
        await exchange.text(token)


async def show_token(exchange: Exchange) -> None:
    """How long a token has left, and its transfers; not a use of it."""
    store, token = exchange.relay.store, exchange.token()
    found = await store.token(token=token)
    if found is None:
        raise Problem(Error.UNKNOWN_TOKEN)
    left, fields = found
    looks = [await store.look(token=token, name=name, use=False) for name, _ in transfers_in(fields)]
    live = [transfer for transfer in looks if transfer is not None]
    if exchange.wants_json():
        transfers = [{"name": t.name, "state": t.state, "length": t.length} for t in live]
        await exchange.answer(JSONResponse({"expires_in": int(left), "transfers": transfers}))
        return
    lines = [f"expires in {int(left)} s"]
    lines += [f"{t.state:<10} {'?' if t.length is None else t.length:>15} {t.name}" for t in live]
    await exchange.text("\n".join(lines))


async def revoke_token(exchange: Exchange) -> None:
    await exchange.relay.revoke(token=exchange.token())
    await exchange.answer(Response(status_code=204))


# -- transfers ---------------------------------------------------------------------------------------------


async def upload(exchange: Exchange) -> None:
    token, name = exchange.token_and_name()
    headers = exchange.headers
    if "content-range" in headers:
        raise Problem(Error.NO_RANGES, header="Content-Range")
    media_type = headers.get("content-type", "")
    if not is_media_type(media_type):
        raise Problem(Error.BAD_TYPE)
    chunked = "transfer-encoding" in headers  # the parser has refused all but those that end in chunked
    sent = await exchange.relay.upload(
        token=token,
        name=name,
        length=None if chunked else int(headers.get("content-length", 0)),
        media_type=media_type,
        body=_body(exchange.receive),
        client=exchange.client,
    )
    if exchange.wants_json():
        await exchange.answer(JSONResponse({"outcome": Outcome.COMPLETE, "bytes": sent}))
    else:
        await exchange.text(f"delivered {sent} bytes")


async def download(exchange: Exchange) -> None:
    token, name = exchange.token_and_name()
    headers = exchange.headers
    if headers.get("range", "bytes=0-").replace(" ", "").lower() != "bytes=0-":
        raise Problem(Error.NO_RANGES, header="Range")
    if is_prefetch(headers):
        raise Problem(Error.NO_PREFETCH)
    sink = ResponseSink(exchange, name)
    outcome = await exchange.relay.download(
        token=token, name=name, wait=_wait(exchange), sink=sink, client=exchange.client
    )
    if outcome is not Outcome.COMPLETE:
        await exchange.client.cut()


async def head(exchange: Exchange) -> None:
    """The headers a GET would get; takes nothing and does not use the token."""
    token, name = exchange.token_and_name()
    transfer = await exchange.relay.store.look(token=token, name=name, use=False)
    if transfer is None:
        raise Problem(Error.NO_UPLOAD)
    response = Response(headers=_download_headers(transfer))
    if transfer.length is None:
        del response.headers["content-length"]
    await exchange.answer(response)


async def cancel(exchange: Exchange) -> None:
    token, name = exchange.token_and_name()
    if not await exchange.relay.cancel(token=token, name=name):
        raise Problem(Error.NO_UPLOAD)
    await exchange.answer(Response(status_code=204))


def _wait(exchange: Exchange) -> float:
    """Seconds of `?wait=`.  Raises Problem(BAD_WAIT)."""
    settings = exchange.relay.settings
    values = parse_qs(exchange.scope["query_string"].decode("latin-1"), keep_blank_values=True).get("wait")
    if values is None:
        return settings.download_wait
    wait = float(values[-1]) if _SECONDS.fullmatch(values[-1]) else -1.0
    if not 0 <= wait <= settings.download_wait_max:
        raise Problem(Error.BAD_WAIT, most=settings.download_wait_max)
    return wait


def _download_headers(transfer: Transfer) -> dict[str, str]:
    headers = {
        "content-type": transfer.type or "application/octet-stream",
        "content-disposition": content_disposition(parse_name(transfer.name.encode())),
        "accept-ranges": "none",
    }
    if transfer.length is not None:
        headers["content-length"] = str(transfer.length)
    return headers


class ResponseSink:
    """A download's response."""

    def __init__(self, exchange: Exchange, name: str) -> None:
        self.begun = False
        self._exchange = exchange
        self._client = exchange.client  # once: it looks through the headers, and chunks are many
        self._name = name

    def check(self, transfer: Transfer) -> None:
        if transfer.length is None and self._exchange.scope["http_version"] == "1.0":
            raise Problem(Error.HTTP_1_0)

    async def begin(self, transfer: Transfer) -> None:
        headers = self._exchange.common_headers() | _download_headers(transfer) | {"connection": "close"}
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        await self._send({"type": "http.response.start", "status": 200, "headers": raw})
        self.begun = True

    async def write(self, data: Bytes) -> None:
        if not await self._client.has_room():
            raise ClientGone
        if not self._client.write(data):
            await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def approach(self, data: Bytes) -> Bytes:
        """Hands over all but the last byte to a client that is behind, and waits until it has them.

        To a proxy always: its reset, which may come at the end, then loses nothing.
        """
        client = self._client
        with Delivery(client) as delivery:
            if not client.behind_proxy and delivery.behind + len(data) <= _NEAR:
                return data
            await self.write(data[:-1])
            if not await delivery.acknowledged(patience=math.inf):  # a stall is for the download to notice
                raise ClientGone
        return data[-1:]

    async def finish(self, data: Bytes) -> None:
        """Completes the response, and finds out whether the client took all of it."""
        client, patience = self._client, self._exchange.relay.settings.stall
        with Delivery(client) as delivery:
            if client.is_tls:
                # Our end of TLS is data, which the kernel of a client that has closed answers with a reset, as if it
                # had left bytes unread: so let it close first.
                client.hold()
            await self._send({"type": "http.response.body", "body": data, "more_body": False})
            if not await delivery.complete(patience=patience):
                raise ClientGone

    def progress(self) -> int:
        return self._client.progress()

    async def _send(self, message: Message) -> None:
        # uvicorn's send() returns as if all were well when the client has gone (ASGI 2.3).
        if not await self._client.has_room():
            raise ClientGone
        await self._exchange.send(message)
        if self._client.is_lost:
            raise ClientGone


# -- the node ----------------------------------------------------------------------------------------------


async def healthz(exchange: Exchange) -> None:
    await exchange.text("alive")


async def readyz(exchange: Exchange) -> None:
    if exchange.relay.phase >= Phase.UNREADY:
        raise Problem(Error.DRAINING)
    await exchange.relay.store.check(node=exchange.relay.node.id)
    await exchange.text("ready")


async def openapi(exchange: Exchange) -> None:
    await exchange.answer(JSONResponse(document(exchange.relay.settings)))


async def not_found(exchange: Exchange) -> None:
    raise Problem(Error.NOT_FOUND)
