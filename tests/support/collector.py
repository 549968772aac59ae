"""A collector of OpenTelemetry: it takes spans by OTLP over HTTP, as those that operators run do."""

import threading
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.support.wait import wait_until


@dataclass(frozen=True)
class Got:
    """One span as it arrived. Ids are in hexadecimal, times in Unix nanoseconds, and `status` is UNSET, OK or ERROR."""

    name: str
    kind: str
    trace: str
    parent: str
    state: str
    begin: int
    end: int
    attributes: dict[str, Any]
    #: Name, time and attributes.
    events: list[tuple[str, int, dict[str, Any]]]
    status: str
    message: str
    resource: dict[str, Any]

    def happened(self) -> list[str]:
        """Return the names of its events, without their first part, which all have."""
        return [name.removeprefix("relay.") for name, _, _ in self.events]


def _values(attributes: Iterable[Any]) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}


def _spans(request: ExportTraceServiceRequest) -> Iterable[Got]:
    for of_resource in request.resource_spans:
        for of_scope in of_resource.scope_spans:
            for span in of_scope.spans:
                yield Got(
                    name=span.name,
                    kind=span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
                    trace=span.trace_id.hex(),
                    parent=span.parent_span_id.hex(),
                    state=span.trace_state,
                    begin=span.start_time_unix_nano,
                    end=span.end_time_unix_nano,
                    attributes=_values(span.attributes),
                    events=[(each.name, each.time_unix_nano, _values(each.attributes)) for each in span.events],
                    status=span.status.StatusCode.Name(span.status.code).removeprefix("STATUS_CODE_"),
                    message=span.status.message,
                    resource=_values(of_resource.resource.attributes),
                )


class Collector:
    """Takes spans at `url`; or, if it `hangs`, takes requests and never answers. It is a context manager."""

    def __init__(self, *, hangs: bool = False) -> None:
        self.spans: list[Got] = []
        #: The bodies of all requests, and how many have begun.
        self.bodies: list[bytes] = []
        self.requests = 0
        collector, self._over = self, threading.Event()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                collector.requests += 1
                body = self.rfile.read(int(self.headers["content-length"]))
                if hangs:
                    collector._over.wait()
                collector.bodies.append(body)
                collector.spans += _spans(ExportTraceServiceRequest.FromString(body))
                with suppress(OSError):
                    self.send_response(200 if self.path == "/v1/traces" else 404)
                    self.send_header("content-length", "0")
                    self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def wait(self, count: int, **attributes: object) -> list[Got]:
        """Wait for so many spans with these attributes (`_` stands for a dot). Return them in order of their begins."""
        wanted = {name.replace("_", "."): value for name, value in attributes.items()}

        def found() -> list[Got]:
            return [span for span in list(self.spans) if wanted.items() <= span.attributes.items()]

        wait_until(lambda: len(found()) >= count, f"{count} spans with {wanted}")
        assert len(found()) == count, found()
        return sorted(found(), key=lambda span: span.begin)
