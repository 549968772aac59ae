"""What a log line looks like: text on a terminal, one JSON object elsewhere; each with the id of its request.

No line has a token in full, whoever wrote it: see `_Formatter.format`.
"""

import copy
import json
import logging
import re
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

#: What is known of the request that this task serves; shared by the tasks which it starts.
about_request: ContextVar[dict[str, Any] | None] = ContextVar("about_request", default=None)

#: What looks like a token.
_TOKEN = re.compile(r"\b([A-Za-z0-9]{4})[A-Za-z0-9]{18}\b")


def note(**facts: object) -> None:
    """Adds facts to what is logged of the request that is being served, if one is."""
    if (about := about_request.get()) is not None:
        about.update(facts)


def fields(**facts: object) -> dict[str, Any]:
    """`extra` for a log call: facts that stand beside its message, each under its name."""
    return {"fields": facts}


class _Formatter(logging.Formatter):
    """What both forms have in common."""

    def format(self, record: logging.LogRecord) -> str:
        facts = dict(getattr(record, "fields", {}))
        for name, fact in (about_request.get() or {}).items():
            facts.setdefault(name, fact)
        return _TOKEN.sub(r"\1…", self.line(record, facts))

    def line(self, record: logging.LogRecord, facts: dict[str, Any]) -> str:
        raise NotImplementedError


class Text(_Formatter):
    """For people: `2026-11-23 17:45:07,123 INFO relay.transfer ended transfer=… outcome=complete`."""

    def line(self, record: logging.LogRecord, facts: dict[str, Any]) -> str:
        record = copy.copy(record)  # which other handlers get, too
        record.msg = " ".join([record.getMessage(), *(f"{name}={fact}" for name, fact in facts.items())])
        record.args = None
        return logging.Formatter.format(self, record)


class Json(_Formatter):
    """For collectors: one object a line."""

    def line(self, record: logging.LogRecord, facts: dict[str, Any]) -> str:
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        entry = {"time": when, "level": record.levelname.lower(), "logger": record.name, "message": record.getMessage()}
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry | facts, ensure_ascii=False, default=str)


def set_up(*, level: str, form: str) -> None:
    """Sends every logger to stderr.  `form`: text, json, or auto, which is text on a terminal."""
    is_text = form == "text" or (form == "auto" and sys.stderr.isatty())
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Text("%(asctime)s %(levelname)s %(name)s %(message)s") if is_text else Json())
    logging.basicConfig(level=level.upper(), handlers=[handler])
