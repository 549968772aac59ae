"""One request and its answer: what each handler is given, and the one place that turns an error into an answer."""

import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from urllib.parse import parse_qs

from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from relay.access import Access, Link, Right, Token
from relay.api import upload_fields
from relay.api.admission import Admission
from relay.digests import digest_header
from relay.errors import ClientGone, Error, Problem
from relay.logs import note
from relay.metrics import Metrics
from relay.names import UploadAddress, decode_name, encode_name, parse_name
from relay.operations.reports import Reports
from relay.server.conditions import failed_condition
from relay.server.connection import Connection
from relay.server.headers import SAFE_HEADERS, cors_headers, wants_html, wants_json
from relay.states import Outcome
from relay.store.rates import counted_as
from relay.transfer.relay import Relay

log = logging.getLogger("relay.http")

RawHeader = tuple[bytes, bytes]


def encoded(headers: Mapping[str, str]) -> list[RawHeader]:
    """Return headers as ASGI has them."""
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]


_SAFE = encoded(SAFE_HEADERS)


@dataclass(frozen=True, slots=True)
class Services:
    """The objects that handlers work with; one of each per app."""

    relay: Relay
    admission: Admission
    reports: Reports
    metrics: Metrics


class Exchange:
    """One request, and the means to answer it. What is read from the request is read once."""

    def __init__(self, services: Services, scope: Scope, receive: Receive, send: Send, allow: str) -> None:
        """`allow`: the methods that the path takes, as `Allow` lists them."""
        self.services = services
        self.relay = services.relay
        self.scope = scope
        self.receive = receive
        self.send = send
        self.allow = allow
        self.client = Connection.of(scope)
        self.segments = segments_of(scope)
        self._name: str | None = None
        #: The header, by names in lower case. Of a field in several lines it has the first; `joined` has them all.
        self.headers: dict[str, str] = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in reversed(scope["headers"])
        }
        query = scope["query_string"].decode("latin-1")
        #: All values of each parameter in the query.
        self.query = parse_qs(query, keep_blank_values=True) if query else {}

    def token(self) -> Access:
        """Return what the token in the path gives access to. Raise Problem if it cannot be a token."""
        return Token.parse(self.segments[0]).access

    @property
    def name(self) -> str:
        """The name in the path, as it is written in keys. Raise Problem if it cannot be one."""
        if self._name is None:
            if len(self.segments) > 2 and not is_below_name(self.segments):  # noqa: PLR2004 (token and name)
                raise Problem(Error.BAD_NAME, why="The name contains a slash.")
            self._name = encode_name(parse_name(self.segments[1]))
        return self._name

    async def access(self, right: Right | None) -> Access:
        """Return what the token or the link in the path gives access to.

        A link does only for its own name, and only for the `right` that it gives. What no link allows has None as its
        right. Raise Problem.
        """
        name, link = self.name, Link.parse(self.segments[0])
        if link is None:
            return self.token()
        access = await self.relay.access_of(link.id)
        if not link.is_to(access, decode_name(name)):
            raise Problem(Error.UNKNOWN_TOKEN)
        if link.right is not right:
            raise Problem(Error.LINK_ONLY, does="receive" if link.right is Right.RECEIVE else "send")
        return access

    @property
    def address(self) -> str:
        """Return the address under which the client is counted. Behind a trusted proxy, it is the one that it gives."""
        host, _ = self.scope.get("client") or ("", 0)
        return counted_as(host)

    def wants_json(self) -> bool:
        """Return whether the client asks for JSON rather than text."""
        return wants_json(self.joined("accept") or "")

    def wants_html(self) -> bool:
        """Return whether the client asks for HTML, as browsers do."""
        return wants_html(self.joined("accept") or "")

    def joined(self, header: str) -> str | None:
        """Return a header that may be sent in several lines as one list (RFC 9110 section 5.3), or None."""
        if header not in self.headers:
            return None
        wanted = header.encode()
        return ", ".join([value.decode("latin-1") for name, value in self.scope["headers"] if name == wanted])

    @property
    def is_conditional(self) -> bool:
        """Whether the request depends on what is there."""
        return "if-match" in self.headers or "if-none-match" in self.headers

    def failed_condition(self, etag: str | None = None) -> str | None:
        """Return the header of a condition that does not hold if what the path names is there, or None.

        `etag` is the ETag of what is there.
        """
        return failed_condition(etag=etag, if_match=self.joined("if-match"), if_none_match=self.joined("if-none-match"))

    def common_headers(self) -> list[RawHeader]:
        """Return the headers that every answer has."""
        origins = self.relay.settings.cors_origins.split(",") if self.relay.settings.cors_origins else ()
        cors = cors_headers(origins, self.headers, methods=self.allow)
        return [*_SAFE, *encoded(cors), (b"relay-node", self.relay.node.id.encode())]

    async def answer(self, response: Response) -> None:
        """Send a whole answer, with the headers that every answer has, as far as it does not have its own."""
        own = {name for name, _ in response.raw_headers}
        response.raw_headers += [header for header in self.common_headers() if header[0] not in own]
        if response.body and self.scope["method"] != "HEAD":
            self.client.join_head()
        await response(self.scope, self.receive, self.send)

    async def text(self, line: str, *, status: int = 200) -> None:
        """Send a whole answer in plain text."""
        await self.answer(PlainTextResponse(line + "\n", status_code=status))

    async def body(self) -> AsyncIterator[bytes]:
        """Yield the request's body as it arrives. Raise ClientGone if it breaks off."""
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            yield message.get("body", b"")
            if not message.get("more_body", False):
                return


def segments_of(scope: Scope) -> list[bytes]:
    """Return the segments of the path, at least one. They stay percent-encoded: a %2F must not become a slash."""
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    return raw.partition(b"?")[0].split(b"/")[1:] or [b""]  # `OPTIONS *` has none


def is_below_name(segments: list[bytes]) -> bool:
    """Return whether the path is that of something that belongs to a name, and not a name with slashes in it."""
    return is_upload(segments) or is_link(segments)


def is_link(segments: list[bytes]) -> bool:
    """Return whether the path is that at which links to a name are made."""
    return segments[2:] == [b"link"]


def is_upload(segments: list[bytes]) -> bool:
    """Return whether the path may be the address of a resumable upload, and not a name with slashes in it."""
    return len(segments) == 3 and UploadAddress.fits(segments[2])  # noqa: PLR2004 (token, name, upload)


Handler = Callable[[Exchange], Awaitable[None]]


def endpoint(services: Services, methods: dict[str, Handler], offers: Mapping[str, str] | None = None) -> ASGIApp:
    """Return an ASGI app that picks the handler by method, and turns what it raises into an answer.

    `offers` are the headers that answer OPTIONS, beside `Allow`.
    """
    allow = ", ".join(sorted({*methods, "OPTIONS"}))

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange(services, scope, receive, send, allow)
        try:
            if scope["method"] == "OPTIONS":
                await exchange.answer(Response(status_code=204, headers={**(offers or {}), "allow": allow}))
            elif (handler := methods.get(scope["method"])) is None:
                raise Problem(Error.WRONG_METHOD, allow=allow)
            else:
                await handler(exchange)
        except ClientGone:
            await exchange.client.cut()
        except Problem as problem:
            await _refuse(exchange, problem)
        except Exception:
            log.exception("a bug: %s was not answered", scope["method"])
            if exchange.client.is_answering:
                await exchange.client.cut()
            else:
                await _render(exchange, Problem(Error.INTERNAL), {})

    return app


async def _refuse(exchange: Exchange, raised: Problem) -> None:
    """Answer with the problem, or with TOO_MANY if it is one wrong guess too many.

    This is a function of its own because the problem refers to the frames that it was raised through. If a variable of
    one of those referred to the problem, only the garbage collector would free all that they hold.
    """
    problem = await exchange.services.admission.count_failure(raised, address=exchange.address)
    await _render(exchange, problem, {"allow": exchange.allow} if problem.error is Error.WRONG_METHOD else {})


def _advice(exchange: Exchange, problem: Problem) -> dict[str, str]:
    """Return the headers that say how the request would have been accepted, or what became of what it asks for."""
    match problem.error:
        case Error.BAD_CODING:
            return {"accept-encoding": "identity"}  # RFC 9110 section 12.5.3
        case Error.NOT_PARTIAL:
            return {"accept-patch": upload_fields.PARTIAL}  # RFC 5789 section 2.2
        case Error.TOO_LARGE:
            return upload_fields.limits(exchange.relay.settings)
        case Error.MISMATCHING_OFFSET:
            return upload_fields.written(offset=problem.details["offset"], is_complete=False)
        case Error.NO_UPLOAD | Error.CONDITION_FAILED if ended := problem.details.get("ended"):
            digest = digest_header(ended.sha256) if ended.outcome is Outcome.COMPLETE else {}
            return {"relay-outcome": ended.outcome, "relay-delivered": str(ended.delivered)} | digest
    return {}


def _members(problem: Problem) -> dict[str, int]:
    """Return what the definition of a type of problem adds to problem JSON."""
    if problem.error is not Error.MISMATCHING_OFFSET:
        return {}
    return {"expected-offset": problem.details["offset"], "provided-offset": problem.details["provided"]}


async def _render(exchange: Exchange, problem: Problem, headers: dict[str, str]) -> None:
    """Answer with an error: one line of text, or RFC 9457 problem JSON."""
    spec = problem.error.value
    note(reason=problem.error.type)
    exchange.services.metrics.rejections.labels(problem.error.type).inc()
    if problem.retry_after is not None:
        headers["retry-after"] = str(problem.retry_after)
    if spec.status == 401:  # noqa: PLR2004 (RFC 9110 section 15.5.2 wants a challenge with every 401)
        # Browsers know only Basic. They must not ask their users for a token, which is part of the address anyway.
        scheme = "Basic" if problem.error is Error.OPERATORS_ONLY else "Bearer"
        headers["www-authenticate"] = f'{scheme} realm="relay"'
    headers |= _advice(exchange, problem)
    if exchange.wants_json() or spec.type != "about:blank":  # programs know the registered types
        body = {"type": spec.type, "code": problem.error.type, "title": spec.title, "status": problem.status}
        content = json.dumps(body | {"detail": problem.line} | _members(problem)).encode() + b"\n"
        media = "application/problem+json"
    else:
        content, media = problem.line.encode() + b"\n", "text/plain; charset=utf-8"
    answer = Response(content, status_code=problem.status, media_type=media, headers=headers)
    if exchange.scope["method"] not in ("GET", "HEAD", "DELETE"):
        # Its body may still be arriving. The server reads what comes, so that the client gets to see the answer.
        answer.headers["connection"] = "close"
    await exchange.answer(answer)
