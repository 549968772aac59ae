"""Decide by OpenTelemetry's variables whether this node exports spans, and begin with it.

Nothing of OpenTelemetry is imported unless they say where spans go. A variable that cannot be used is named in one line
and costs the spans, not the node: a platform may set these variables for everything that it runs.
"""

import logging
import re
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from relay.operations.spans import NodeSpans

log = logging.getLogger("relay.telemetry")

#: The variables that say where spans go, and by which protocol. The first that is set counts.
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
#: Where OTLP goes if only OTEL_TRACES_EXPORTER=otlp is set.
_DEFAULT_ENDPOINT = "http://localhost:4318"
#: Seconds until OpenTelemetry's complaints of one kind are logged again.
_AGAIN = 60.0


def start(environment: Mapping[str, str], node: str) -> "NodeSpans | None":
    """Begin to export the spans of a node, if the variables ask for it. Return what makes them, or None."""
    set_ones = {name: value.strip() for name, value in environment.items() if name.startswith("OTEL_")}
    exporters = _exporters(set_ones)
    if not exporters:
        return None
    try:
        _check(set_ones, exporters)
        target = _target(set_ones) if "otlp" in exporters else "stdout"
        logger = logging.getLogger("opentelemetry")
        logger.handlers, logger.propagate = [_Complaints(set_ones)], False
        from relay.operations.spans import NodeSpans  # noqa: PLC0415 (it imports OpenTelemetry)

        spans = NodeSpans(node, exporters)
    except ImportError as error:
        log.warning("no spans are exported: %s. Install relay with its extra otel: pip install '.[otel]'", error)
    except ValueError as error:
        log.warning("no spans are exported: %s", error)
    else:
        log.info("spans are exported to %s", target)
        return spans
    return None


def _exporters(variables: Mapping[str, str]) -> list[str]:
    """Return what OTEL_TRACES_EXPORTER asks for. If it asks for nothing, an endpoint asks for OTLP."""
    named = [name.strip() for name in variables.get("OTEL_TRACES_EXPORTER", "").lower().split(",") if name.strip()]
    if variables.get("OTEL_SDK_DISABLED", "").lower() == "true" or "none" in named:
        return []
    return named or (["otlp"] if _first(variables, _ENDPOINTS) else [])


def _check(variables: Mapping[str, str], exporters: list[str]) -> None:
    """Raise ValueError if the variables ask for what relay cannot do."""
    for name in exporters:
        if name not in ("otlp", "console"):
            raise ValueError(f"OTEL_TRACES_EXPORTER can be otlp, console or none, but not {name!r}")
    protocol = _first(variables, _PROTOCOLS)
    if "otlp" in exporters and protocol not in ("", "http/protobuf"):
        raise ValueError(f"OTEL_EXPORTER_OTLP_PROTOCOL can be http/protobuf (usually port 4318), but not {protocol!r}")


def _first(variables: Mapping[str, str], names: tuple[str, ...]) -> str:
    """Return the value of the first of these variables that is set. An empty one counts as not set."""
    return next((variables[name] for name in names if variables.get(name)), "")


def _target(variables: Mapping[str, str]) -> str:
    """Return where OTLP goes, without the password that may be in it. Raise ValueError if that is no address."""
    given = _first(variables, _ENDPOINTS) or _DEFAULT_ENDPOINT
    if not re.match(r"https?://[^/]", given):
        raise ValueError("OTEL_EXPORTER_OTLP_ENDPOINT must be an address, such as http://collector.example:4318")
    scheme, _, rest = given.partition("://")
    return f"{scheme}://{rest.partition('/')[0].rpartition('@')[2]}"


class _Complaints(logging.Handler):
    """Log what OpenTelemetry complains about: one line without a traceback for each kind, at most once a minute.

    A header that it does not understand may be a password, so no line has a part of these variables.
    """

    def __init__(self, variables: Mapping[str, str]) -> None:
        super().__init__(logging.WARNING)
        headers = [part for name, value in variables.items() if name.endswith("_HEADERS") for part in value.split(",")]
        self._secrets = [part.strip() for part in headers if part.strip()]
        #: When each kind was logged last, in monotonic seconds.
        self._logged: dict[str, float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        now = time.monotonic()
        if now - self._logged.get(record.msg, float("-inf")) >= _AGAIN:
            self._logged[record.msg] = now
            said = record.getMessage()
            for secret in self._secrets:
                said = said.replace(secret, "…")
            log.warning("OpenTelemetry: %s", " ".join(said.split()))
