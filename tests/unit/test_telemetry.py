"""Which of OpenTelemetry's variables make a node export spans, and what it says about those that it cannot use."""

import logging
import sys
from collections.abc import Iterator

import pytest

from relay.operations import telemetry

NOWHERE = "http://user:hunter2@127.0.0.1:1"


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Leave OpenTelemetry's logger as it was."""
    logger = logging.getLogger("opentelemetry")
    before = logger.handlers, logger.propagate
    yield
    logger.handlers, logger.propagate = before


def started(caplog: pytest.LogCaptureFixture, variables: dict[str, str]) -> tuple[bool, str]:
    """Return whether spans are exported, and what was logged."""
    caplog.set_level(logging.INFO)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        spans = telemetry.start(variables, "node-1")
    if spans is not None:
        spans.close()
    return spans is not None, "\n".join(caplog.messages)


@pytest.mark.parametrize(
    ("variables", "target"),
    [
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": NOWHERE}, "http://127.0.0.1:1"),
        (
            {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://c.example/v1/traces", "OTEL_TRACES_EXPORTER": " OTLP "},
            "https://c.example",
        ),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_ENDPOINT": ""}, "http://localhost:4318"),
        ({"OTEL_TRACES_EXPORTER": "console", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "stdout"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": NOWHERE, "OTEL_SDK_DISABLED": "false"}, "http://127.0.0.1:1"),
    ],
)
def test_these_export(caplog: pytest.LogCaptureFixture, variables: dict[str, str], target: str) -> None:
    assert started(caplog, variables) == (True, f"spans are exported to {target}")


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"OTEL_SERVICE_NAME": "relay", "OTEL_TRACES_SAMPLER": "always_on", "OTEL_EXPORTER_OTLP_ENDPOINT": " "},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": NOWHERE, "OTEL_SDK_DISABLED": "True"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": NOWHERE, "OTEL_TRACES_EXPORTER": "none"},
        {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": NOWHERE},
    ],
)
def test_these_do_not_and_nothing_is_said(caplog: pytest.LogCaptureFixture, variables: dict[str, str]) -> None:
    assert started(caplog, variables) == (False, "")


@pytest.mark.parametrize(
    ("variables", "line"),
    [
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "OTEL_EXPORTER_OTLP_PROTOCOL can be http/protobuf"),
        (
            {"OTEL_TRACES_EXPORTER": "otlp,zipkin"},
            "OTEL_TRACES_EXPORTER can be otlp, console or none, but not 'zipkin'",
        ),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "collector:4318"}, "must be an address, such as http://"),
        ({"OTEL_BSP_MAX_QUEUE_SIZE": "-1"}, "max_queue_size must be a positive integer"),
        ({"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "-5"}, "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT must be a non-negative integer"),
    ],
)
def test_what_cannot_be_used_costs_the_spans_and_one_line(
    caplog: pytest.LogCaptureFixture, variables: dict[str, str], line: str
) -> None:
    is_on, said = started(caplog, {"OTEL_EXPORTER_OTLP_ENDPOINT": NOWHERE, **variables})
    assert not is_on
    assert said.startswith("no spans are exported: ")
    assert line in said
    assert "\n" not in said


def test_without_the_extra_there_is_one_line(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "relay.operations.spans", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    is_on, said = started(caplog, {"OTEL_EXPORTER_OTLP_ENDPOINT": NOWHERE})
    assert not is_on
    assert said.count("\n") == 0
    assert "Install relay with its extra otel" in said


def test_a_header_that_is_not_understood_is_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    headers = {"OTEL_EXPORTER_OTLP_HEADERS": "Authorization: Bearer sesame", "OTEL_EXPORTER_OTLP_ENDPOINT": NOWHERE}
    is_on, said = started(caplog, headers)
    assert is_on
    assert "OpenTelemetry: Header format invalid" in said
    assert "sesame" not in said
