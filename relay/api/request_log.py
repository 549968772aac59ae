"""One log line for each request, and an id that ties together all lines about it."""

import logging
import re
import time
from collections.abc import Awaitable, Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from relay import tracing
from relay.logs import fields, request_facts
from relay.names import new_id
from relay.store.rates import counted_as
from relay.tracing import Spans, request_span

log = logging.getLogger("relay.request")

#: An X-Request-ID that is accepted from a client: UUIDs, trace ids, or a balancer's counter.
_ACCEPTED_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
#: W3C Trace Context, section 3.2: version, id of the trace, id of the caller's span, flags, what later versions add.
_TRACEPARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-.*)?")
#: Paths that balancers and Prometheus ask for every second. Their lines are logged at level DEBUG.
_ROUTINE = {"/", "/status", "/healthz", "/readyz", "/metrics"}


class RequestLog:
    """ASGI middleware that gives each request an id, its client's or a new one, and logs a line when it is over.

    Every line about the request has the address under which its client is counted, so that it can be compared with a
    429: behind a trusted proxy the one that the proxy gives, and of an IPv6 address only the network that one customer
    has.

    With `spans`, a request that becomes a side of a transfer has a span of OpenTelemetry, too. `others` serves what is
    no request: the start and the end of the app.
    """

    def __init__(self, app: ASGIApp, others: ASGIApp, spans: Spans | None = None) -> None:
        self._app = app
        self._others = others
        self._spans = spans

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._others(scope, receive, send)
            return
        first_lines = dict(reversed(scope["headers"]))
        request, status, begun = _request_id(first_lines), 0, time.monotonic()

        def send_with_id(message: Message) -> Awaitable[None]:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request.encode())]
            return send(message)

        host, _ = scope.get("client") or ("", 0)
        facts = {"request": request, "address": counted_as(host), **_trace(scope, first_lines)}
        span = self._spans.of_request(scope, facts) if self._spans is not None else None
        facts_before = request_facts.set(facts)
        span_before = request_span.set(span)
        try:
            await self._app(scope, receive, send_with_id)
        finally:
            _log_answer(scope, status, time.monotonic() - begun)
            tracing.end(status)
            request_span.reset(span_before)
            request_facts.reset(facts_before)


def _log_answer(scope: Scope, status: int, seconds: float) -> None:
    """Log one request. `status` is 0 if its client left before there was an answer."""
    is_routine = scope["path"] in _ROUTINE and status != 401  # noqa: PLR2004 (a 401 may be a guessed secret)
    answer = {"status": status} if status else {"left": True}
    facts = fields(method=scope["method"], **answer, seconds=round(seconds, 3))
    log.log(logging.DEBUG if is_routine else logging.INFO, "answered", extra=facts)


def _request_id(first_lines: Mapping[bytes, bytes]) -> str:
    """Return the id that the client gave its request, or a new one if it gave none that is accepted."""
    given = first_lines.get(b"x-request-id", b"").decode("latin-1")
    return given if _ACCEPTED_ID.fullmatch(given) else new_id()


def _trace(scope: Scope, first_lines: Mapping[bytes, bytes]) -> dict[str, str]:
    """Return the id of the trace that the request is a part of, as the fact `trace`; nothing if it is not valid."""
    if b"traceparent" not in first_lines:
        return {}
    given = [value for name, value in scope["headers"] if name == b"traceparent"]
    if len(given) != 1 or not (found := _TRACEPARENT.fullmatch(given[0])):
        return {}
    version, trace, span, more = found.groups()
    is_zero = not trace.strip(b"0") or not span.strip(b"0")
    return {} if version == b"ff" or is_zero or (version == b"00" and more) else {"trace": trace.decode()}
