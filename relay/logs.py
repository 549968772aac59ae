"""What a log line looks like: text on a terminal, one JSON object elsewhere, each with the id of its request.

No line contains a whole token, or the secret of a resumable upload, whichever logger wrote it: see `masked`.
"""

import json
import logging
import re
import sys
import time
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, TextIO

#: The facts about the request that this task serves, which every line has that is logged meanwhile. The tasks that it
#: starts share them.
request_facts: ContextVar[dict[str, Any] | None] = ContextVar("request_facts", default=None)

_audit = logging.getLogger("relay.audit")

#: The beginning of a word, also behind one of JSON's escapes, whose last letter belongs to no word.
_BEGIN = r"(?:\b|(?<=\\[nrtbf])|(?<=\\u[0-9a-f]{4}))"
#: Anything that looks like a token, a link, the address of a resumable upload, or a token of version 0.1, which nodes
#: of that version still bring during an upgrade. Only its beginning, which is its id, is shown.
_SECRET = re.compile(
    _BEGIN + r"(?:([A-Za-z0-9]{8})(?:[A-Za-z0-9]{22}|[A-Za-z0-9]{14}|[rs][0-9a-f]{32})|([0-9a-f]{16})[A-Za-z0-9]{22})\b"
)
#: The letters and digits of the shortest of them.
_SHORTEST = 22
#: What each of them begins with, and few lines have otherwise: looking for this first takes a quarter of the time.
_LONG = re.compile(rf"{_BEGIN}[A-Za-z0-9]{{{_SHORTEST}}}")
#: The types of facts whose JSON is as long as their text.
_PLAIN = (str, int, float, bool, type(None))
#: `json.dumps` would make one for each line.
_encode = json.JSONEncoder(ensure_ascii=False, default=str).encode


def masked(text: str) -> str:
    """Return the text with whatever looks like a secret cut down to its id."""
    return _SECRET.sub(r"\1\2…", text) if _LONG.search(text) else text


def note(**facts: object) -> None:
    """Add facts to the lines that are logged of the request being served. Do nothing outside a request."""
    if (about := request_facts.get()) is not None:
        about.update(facts)


def fields(**facts: object) -> dict[str, Any]:
    """Return the `extra` of a log call: facts that stand beside its message, each under its name."""
    return {"fields": facts}


def audit(event: str, **facts: object) -> None:
    """Log one line that says who did what: the facts, and those of the request, which has the client's address."""
    _audit.info(event, extra=fields(**facts))


def _facts(record: logging.LogRecord) -> dict[str, Any]:
    """Return the facts of a line: its own, which come first and win, and those about the request."""
    own = getattr(record, "fields", {})
    return {**own, **(request_facts.get() or {}), **own}


class _Record(logging.LogRecord):
    """What is known of a line, as far as any form shows it: `logging` also takes apart the path of the source."""

    pathname = filename = module = funcName = threadName = processName = taskName = ""  # noqa: N815 (logging's names)
    lineno = thread = process = relativeCreated = 0  # noqa: N815

    def __init__(  # noqa: PLR0917 (as `logging` calls it)
        self,
        name: str,
        level: int,
        _path: str,
        _line: int,
        msg: object,
        args: Any,
        exc_info: Any,
        _func: str | None = None,
        sinfo: str | None = None,
    ) -> None:
        self.name, self.msg, self.exc_info = name, msg, exc_info
        self.args = args[0] if args and len(args) == 1 and isinstance(args[0], Mapping) and args[0] else args
        self.levelno, self.levelname = level, logging.getLevelName(level)
        self.exc_text, self.stack_info = None, sinfo
        self.created = time.time()
        self.msecs = self.created % 1 * 1000


class Text(logging.Formatter):
    """For people: `2026-11-23 17:45:07,123 INFO relay.transfer ended transfer=… outcome=complete`.

    The message has to be the last part of the format, because the facts follow it.
    """

    def format(self, record: logging.LogRecord) -> str:
        return masked(super().format(record))

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (its name in `logging`)
        return " ".join([super().formatMessage(record), *(f"{name}={fact}" for name, fact in _facts(record).items())])


class Json(logging.Formatter):
    """For log collectors: one JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        facts = {"message": record.getMessage()}
        if record.exc_info:
            facts["exception"] = self.formatException(record.exc_info)
        facts |= _facts(record)
        second, millisecond = divmod(int(record.created * 1000), 1000)
        when = f"{_second(second)}.{millisecond:03d}+00:00"
        line = _encode({"time": when, "level": record.levelname.lower(), "logger": record.name} | facts)
        # To search a line takes as long as to make it, and most lines have only short facts.
        is_short = all(type(fact) in _PLAIN and len(str(fact)) < _SHORTEST for fact in facts.values())
        return line if is_short else masked(line)


@lru_cache(maxsize=1)
def _second(timestamp: int) -> str:
    """Return a second in UTC. Many lines have the same one."""
    return f"{datetime.fromtimestamp(timestamp, UTC):%Y-%m-%dT%H:%M:%S}"


class _Stderr(logging.StreamHandler[TextIO]):
    """Writes each line at once."""

    def flush(self) -> None:
        """Do nothing: at the end of each line, `sys.stderr` flushes itself."""


def set_up(*, level: str, form: str) -> None:
    """Send every logger to stderr. `form`: text, json, or auto, which is text on a terminal and JSON elsewhere."""
    is_text = form == "text" or (form == "auto" and sys.stderr.isatty())
    handler = _Stderr(sys.stderr)
    handler.setFormatter(Text("%(asctime)s %(levelname)s %(name)s %(message)s") if is_text else Json())
    logging.basicConfig(level=level.upper(), handlers=[handler])
    # No form shows where in the source a line was logged, so no line pays for finding that out.
    logging._srcfile = None
    logging.setLogRecordFactory(_Record)
