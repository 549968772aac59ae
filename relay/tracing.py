"""What a request does for a transfer, told to its span, if there is one.

A request that becomes a side of a transfer, an upload or a download, has a span in OpenTelemetry, if operators have set
that up: `relay.operations.telemetry` decides that, and `relay.operations.spans` makes the spans. Otherwise these
functions do nothing. They are told facts by the names that log lines have for them.
"""

import contextlib
import logging
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import Any, Literal, Protocol

log = logging.getLogger("relay.tracing")

Side = Literal["upload", "download"]


class Span(Protocol):
    """The span of one request. It exists from `begin` on; before that, the other methods do nothing."""

    def begin(self, side: Side, event: str, /, **facts: object) -> None:
        """The request has become a side of a transfer, by an event."""

    def event(self, event: str, /, **facts: object) -> None:
        """Something has happened to the transfer, now."""

    def add(self, **facts: object) -> None:
        """Add facts, in place of those that had their names."""

    def leave(self) -> None:
        """The transfer goes on without this request, which has neither succeeded nor failed."""

    def end(self, status: int) -> None:
        """The request is over. `status` is that of its answer, 0 if its client left before there was one."""


class Spans(Protocol):
    """What makes the spans of one node."""

    def of_request(self, scope: Mapping[str, Any], facts: Mapping[str, object]) -> Span:
        """Return the span of a request: of its ASGI scope, and the facts of its log lines, also those of later."""


#: The span of the request that this task serves. The tasks that it starts share it.
request_span: ContextVar[Span | None] = ContextVar("request_span", default=None)


@contextlib.contextmanager
def _harmless() -> Iterator[None]:
    """Log whatever fails. A sampler may be anybody's code, and no transfer may end because of its span."""
    try:
        yield
    except Exception:
        log.exception("a bug: a span is not complete")


def begin(side: Side, event: str, /, **facts: object) -> None:
    """Say that the request is a side of a transfer from now on."""
    if (span := request_span.get()) is not None:
        with _harmless():
            span.begin(side, event, **facts)


def happened(event: str, /, **facts: object) -> None:
    """Say that something has happened to the transfer, now."""
    if (span := request_span.get()) is not None:
        with _harmless():
            span.event(event, **facts)


def add(**facts: object) -> None:
    """Say something about this side of the transfer as a whole."""
    if (span := request_span.get()) is not None:
        with _harmless():
            span.add(**facts)


def leave() -> None:
    """Say that the transfer goes on without this request."""
    if (span := request_span.get()) is not None:
        with _harmless():
            span.leave()


def end(status: int) -> None:
    """Say that the request is over, and the status of its answer; 0 if its client left before there was one."""
    if (span := request_span.get()) is not None:
        with _harmless():
            span.end(status)
