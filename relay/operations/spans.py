"""Spans of OpenTelemetry: one for each request that is a side of a transfer.

Only `telemetry` imports this module, and only if operators ask for spans. OpenTelemetry promises that no call of its
API raises or waits, whatever its exporter does: that has a thread of its own, and a queue that drops spans when it is
full.
"""

import threading
import time
from collections.abc import Iterable, Mapping
from typing import Any

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import (
    SERVICE_INSTANCE_ID,
    SERVICE_NAME,
    SERVICE_VERSION,
    OTELResourceDetector,
    Resource,
)
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, format_trace_id
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from relay import __version__
from relay.logs import masked, note
from relay.states import Outcome
from relay.tracing import Side

#: What exports spans, by the names of OTEL_TRACES_EXPORTER.
_EXPORTERS = {"otlp": OTLPSpanExporter, "console": ConsoleSpanExporter}
#: Maximum seconds that the shutdown of a node waits until the last spans are exported.
_FLUSH = 2.0
#: Maximum characters of a `tracestate` that is taken (W3C Trace Context, section 3.3.1.5, asks for 512). Spans hold it
#: while they wait for their export.
_STATE_MAX = 512
#: Routes by the number of segments in the path.
_ROUTES = {2: "/{token}/{name}", 3: "/{token}/{name}/{upload}"}
#: The attribute for each fact: by OpenTelemetry's semantic conventions, if they have one for it.
_ATTRIBUTES = {
    "address": "client.address",
    "name": "file.name",
    "length": "file.size",
    "received": "http.request.body.size",
    "sent": "http.response.body.size",
    "request": "relay.request.id",
    "side": "relay.side",
    "transfer": "relay.transfer.id",
    "token": "relay.token.id",
    "outcome": "relay.outcome",
    "delivered": "relay.delivered",
    "leg": "relay.leg",
    "start": "relay.start",
    "peer": "relay.peer",
    "by": "relay.by",
}
#: The facts that do not change in the course of a transfer. They are in the span, but not in its events.
_CONSTANT = ("token", "name", "length")


def _attributes(facts: Mapping[str, object]) -> dict[str, Any]:
    """Return the attributes for facts. Secrets are masked, as in the logs; what is unknown is left out."""
    return {
        _ATTRIBUTES[name]: masked(fact) if isinstance(fact, str) else fact
        for name, fact in facts.items()
        if fact not in (None, "")
    }


class RequestSpan:
    """See `relay.tracing.Span`."""

    def __init__(self, spans: "NodeSpans", scope: Mapping[str, Any], facts: Mapping[str, object]) -> None:
        self._spans = spans
        self._scope = scope
        self._facts = facts
        self._begun = time.time_ns()
        self._span: Span | None = None
        self._has_left = False

    def begin(self, side: Side, event: str, /, **facts: object) -> None:
        if self._span is None:
            self._span = self._spans.open(self._scope, self._facts, begun=self._begun)
        self.add(side=side, transfer=facts.get("transfer"), **{name: facts.get(name) for name in _CONSTANT})
        self.event(event, **facts)

    def event(self, event: str, /, **facts: object) -> None:
        if self._span is not None:
            self._has_left = False
            varying = {fact: value for fact, value in facts.items() if fact not in _CONSTANT}
            self._span.add_event(f"relay.{event}", _attributes(varying))

    def add(self, **facts: object) -> None:
        if self._span is not None:
            self._span.set_attributes(_attributes(facts))

    def leave(self) -> None:
        self.event("left")
        self._has_left = True

    def end(self, status: int) -> None:
        if self._span is None:
            return
        if status:
            self._span.set_attribute("http.response.status_code", status)
        if not self._has_left:
            self.add(outcome=self._facts.get("outcome"))
            self._judge(self._span, status)
        self._span.end()

    def _judge(self, span: Span, status: int) -> None:
        """Set the span's status: by the outcome, or if this request did not decide on one, by the answer."""
        outcome, reason = self._facts.get("outcome"), self._facts.get("reason")
        if outcome == Outcome.COMPLETE:
            span.set_status(Status(StatusCode.OK))
        elif outcome is not None or status >= 500:  # noqa: PLR2004 (of a server's span, 4xx is no error)
            why = str(outcome or reason or status)
            span.set_attribute("error.type", why)
            span.set_status(Status(StatusCode.ERROR, why))


class NodeSpans:
    """Makes the spans of one node, and exports them. See `relay.tracing.Spans`."""

    def __init__(self, node: str, exporters: Iterable[str]) -> None:
        """Take everything else from OpenTelemetry's variables. Raise ValueError if one of them cannot be used."""
        own = Resource.create({SERVICE_NAME: "relay", SERVICE_VERSION: __version__, SERVICE_INSTANCE_ID: node})
        resource = own.merge(OTELResourceDetector().detect())  # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES win
        # At the exit of the process, it would wait for as long as its exporter takes.
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        for exporter in exporters:
            self._provider.add_span_processor(BatchSpanProcessor(_EXPORTERS[exporter]()))
        self._tracer = self._provider.get_tracer("relay", __version__)
        self._propagator = TraceContextTextMapPropagator()

    def of_request(self, scope: Mapping[str, Any], facts: Mapping[str, object]) -> RequestSpan:
        return RequestSpan(self, scope, facts)

    def open(self, scope: Mapping[str, Any], facts: Mapping[str, object], *, begun: int) -> Span:
        """Start the span of a request that began at `begun` (Unix nanoseconds), and note the id of its trace."""
        path = scope.get("raw_path") or scope["path"].encode()
        route = _ROUTES.get(path.partition(b"?")[0].count(b"/"), "/")
        span = self._tracer.start_span(
            f"{scope['method']} {route}",
            context=self._parent(scope, facts),
            kind=SpanKind.SERVER,
            attributes={
                "http.request.method": scope["method"],
                "http.route": route,
                "url.path": masked(path.partition(b"?")[0].decode("latin-1")),
                "url.scheme": scope["scheme"],
                "network.protocol.version": scope["http_version"],
            }
            | _attributes({name: facts.get(name) for name in ("address", "request")}),
            start_time=begun,
        )
        if span.is_recording():
            note(trace=format_trace_id(span.get_span_context().trace_id))
        return span

    def _parent(self, scope: Mapping[str, Any], facts: Mapping[str, object]) -> Context:
        """Return the context of the client's span. It is empty if the client gave none, or none that is valid."""
        if "trace" not in facts:
            return Context()
        headers = [(name.decode(), value.decode("latin-1")) for name, value in scope["headers"]]
        state = [value for name, value in headers if name == "tracestate"]
        carrier = {"traceparent": [value for name, value in headers if name == "traceparent"]}
        if 0 < sum(map(len, state)) <= _STATE_MAX:
            carrier["tracestate"] = state
        return self._propagator.extract(carrier, Context())

    def close(self) -> None:
        """Export what is left, for at most two seconds. Spans that end later are lost."""
        # Its own limit of time is not kept while an exporter waits for an answer. A daemon thread does not keep the
        # process alive.
        flush = threading.Thread(target=self._provider.shutdown, name="relay-spans", daemon=True)
        flush.start()
        flush.join(_FLUSH)
