"""The OpenAPI document, served at /openapi.json: every address, what it takes, and every answer.

The errors are those of `errors`, so their lines and statuses cannot differ; a test compares addresses and methods
with the app's.
"""

from collections import defaultdict
from typing import Any, NamedTuple

from relay import __version__
from relay.errors import FAILED_DEPENDENCY, RETRIED, Error
from relay.settings import Settings

#: What any request may be answered with, before anybody has looked where it goes.
_ANY = (
    Error.NOT_HTTP,
    Error.NO_UPGRADE,
    Error.HEADER_TIMEOUT,
    Error.HEADER_TOO_LARGE,
    Error.INTERNAL,
    Error.HTTP_VERSION,
)
_STORE = (Error.STORE_DOWN, Error.STORE_FULL)
_TOKEN = (Error.UNKNOWN_TOKEN, Error.TOO_MANY, *_STORE)
_NAME = (Error.BAD_NAME, *_TOKEN)
_UPLOAD = (
    *_NAME,
    Error.BAD_TYPE,
    Error.NO_RANGES,
    Error.REVOKED,
    Error.STALLED,
    Error.NAME_IN_USE,
    Error.CANCELLED,
    Error.TOO_LARGE,
    Error.TOO_LONG,
    Error.CROWDED,
    Error.SPENT,
    Error.DOWNLOADER_GONE,
    Error.NODE_LOST,
    Error.STORE_LOST,
    Error.DRAINING,
    Error.NO_DOWNLOADER,
)
_DOWNLOAD = (
    *_NAME,
    Error.BAD_WAIT,
    Error.NO_RANGES,
    Error.NO_PREFETCH,
    Error.REVOKED,
    Error.NO_UPLOAD,
    Error.STALLED,
    Error.TAKEN,
    Error.CANCELLED,
    Error.TOO_LONG,
    Error.CROWDED,
    Error.STORE_LOST,
    Error.DRAINING,
    Error.HTTP_1_0,
)

#: `names.parse_name` as a regular expression; its 255 bytes cannot be said in one.
_NAME_PATTERN = r"^[^/\\\u0000-\u001f\u007f-\u009f]+$"

_TEXT = {"text/plain": {"schema": {"type": "string"}}}
_BYTES = {"*/*": {"schema": {"type": "string", "format": "binary"}}}


def _json(**properties: dict[str, Any]) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    return {"application/json": {"schema": schema}}


_INTEGER = {"type": "integer", "minimum": 0}
_STRING = {"type": "string"}
_TRANSFERS = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {"name": _STRING, "state": _STRING, "length": {"type": ["integer", "null"]}},
        "required": ["name", "state", "length"],
    },
}
_OBJECTS = {"type": "array", "items": {"type": "object"}}
_STATUS = (
    _TEXT
    | {"text/html": {"schema": _STRING}}
    | _json(
        streaming=_INTEGER,
        waiting=_INTEGER,
        tokens=_INTEGER,
        rate={"type": "number", "minimum": 0},
        nodes=_OBJECTS,
        transfers=_OBJECTS,
        expiring=_OBJECTS,
    )
)


class _Operation(NamedTuple):
    path: str
    method: str
    summary: str
    status: int
    says: str
    content: dict[str, Any] | None
    errors: tuple[Error, ...] = ()


_OPERATIONS = (
    _Operation(
        "/token",
        "post",
        "Make a token",
        200,
        "The token and a newline.",
        _TEXT | _json(token=_STRING, expires_in=_INTEGER),
        (Error.SECRET_NEEDED, Error.TOO_MANY, *_STORE, Error.DRAINING),
    ),
    _Operation(
        "/{token}",
        "get",
        "Tell how long a token has left, and its transfers; not a use of it",
        200,
        "Seconds, and a line for each transfer.",
        _TEXT | _json(expires_in=_INTEGER, transfers=_TRANSFERS),
        _TOKEN,
    ),
    _Operation("/{token}", "delete", "Revoke a token and end its transfers", 204, "It is revoked.", None, _TOKEN),
    *(
        _Operation(
            "/{token}/{name}",
            method,
            "Upload: waits for a downloader, then streams",
            200,
            "The downloader has the last byte.",
            _TEXT | _json(outcome=_STRING, bytes=_INTEGER),
            _UPLOAD,
        )
        for method in ("put", "post")
    ),
    _Operation(
        "/{token}/{name}",
        "get",
        "Download: waits for an upload, then streams",
        200,
        "The bytes, as they arrive. Whole only if the response ends as HTTP says it must.",
        _BYTES,
        _DOWNLOAD,
    ),
    _Operation(
        "/{token}/{name}",
        "head",
        "The headers that a GET would get; takes nothing",
        200,
        "Somebody uploads it.",
        None,
        (*_NAME, Error.NO_UPLOAD),
    ),
    _Operation(
        "/{token}/{name}",
        "delete",
        "End a transfer, on both sides",
        204,
        "It is ended.",
        None,
        (*_NAME, Error.NO_UPLOAD, Error.TOO_LATE),
    ),
    *(
        _Operation(
            "/",
            method,
            "Active streams, nodes and tokens; without names and secrets, but for who has RELAY_ADMIN_SECRET",
            200,
            "For a browser, a terminal or a script.",
            _STATUS if method == "get" else None,
            (Error.OPERATORS_ONLY, Error.TOO_MANY, *_STORE),
        )
        for method in ("get", "head")
    ),
    *(
        _Operation("/healthz", method, "Alive?", 200, "Alive.", _TEXT if method == "get" else None)
        for method in ("get", "head")
    ),
    *(
        _Operation(
            "/readyz",
            method,
            "Ready to take work?",
            200,
            "Redis answers a write, and the node does not drain.",
            _TEXT if method == "get" else None,
            (*_STORE, Error.DRAINING),
        )
        for method in ("get", "head")
    ),
    *(
        _Operation(
            "/metrics",
            method,
            "This node's numbers, for Prometheus",
            200,
            "In the form that Accept asks for.",
            {"*/*": {"schema": _STRING}} if method == "get" else None,
            (Error.OPERATORS_ONLY, Error.TOO_MANY, *_STORE),
        )
        for method in ("get", "head")
    ),
    _Operation("/openapi.json", "get", "This document", 200, "OpenAPI 3.1.", _json()),
    *(
        _Operation(path, "get", "Nothing", 404, Error.NOT_FOUND.value.line, _TEXT, (Error.NOT_FOUND,))
        for path in ("/favicon.ico", "/robots.txt")
    ),
)


def document(settings: Settings) -> dict[str, Any]:
    """The document, with this node's limits."""
    paths: dict[str, Any] = defaultdict(dict)
    for operation in _OPERATIONS:
        paths[operation.path][operation.method] = _operation(operation, settings)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "relay",
            "version": __version__,
            "description": "An HTTP streaming relay: one client uploads, another downloads the same path at the "
            "same time. An error is one line of text, or RFC 9457 problem JSON where Accept asks for it.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "paths": paths,
        "components": {
            "securitySchemes": {"secret": {"type": "http", "scheme": "bearer", "description": "RELAY_TOKEN_SECRET"}},
            "schemas": {"Problem": _PROBLEM},
        },
    }


_PROBLEM = {
    "description": "RFC 9457; `code` is the word for scripts",
    "type": "object",
    "properties": {
        "type": _STRING,
        "code": {"type": "string", "enum": [error.type for error in Error]},
        "title": _STRING,
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": _STRING,
    },
    "required": ["type", "code", "title", "status", "detail"],
}


def _operation(operation: _Operation, settings: Settings) -> dict[str, Any]:
    responses: dict[str, Any] = {str(operation.status): {"description": operation.says}}
    if operation.content is not None:
        responses[str(operation.status)]["content"] = operation.content
    by_status: dict[int, list[Error]] = defaultdict(list)
    for error in (*operation.errors, *_ANY):
        by_status[error.value.status].append(error)
    takes_body = operation.method == "put" or (operation.method, operation.path) == ("post", "/{token}/{name}")
    if takes_body:
        by_status[FAILED_DEPENDENCY] = [error for status in sorted(RETRIED) for error in by_status.get(status, [])]
    for status, errors in sorted(by_status.items()):
        responses[str(status)] = _failure(errors, has_content=operation.method != "head")
    described: dict[str, Any] = {"summary": operation.summary, "responses": responses}
    if parameters := _parameters(operation, settings):
        described["parameters"] = parameters
    if takes_body:
        described["requestBody"] = {"description": "Any bytes, of any length", "content": _BYTES}
    if operation.path == "/token" and settings.token_secret:
        described["security"] = [{"secret": []}]
    return described


def _failure(errors: list[Error], *, has_content: bool) -> dict[str, Any]:
    """One status; the lines of its errors in the description, by their words for scripts."""
    failure: dict[str, Any] = {"description": "\n".join(f"- `{e.type}`: {e.value.line}" for e in errors)}
    if any(error.value.retry_after is not None or error is Error.TOO_MANY for error in errors):
        failure["headers"] = {"Retry-After": {"description": "seconds", "schema": _INTEGER}}
    if has_content:
        failure["content"] = _TEXT | {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return failure


def _parameters(operation: _Operation, settings: Settings) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    if "{token}" in operation.path:
        schema: dict[str, Any] = {"type": "string", "pattern": "^[A-Za-z0-9]{22}$"}
        found.append({"name": "token", "in": "path", "required": True, "schema": schema})
    if "{name}" in operation.path:
        says = "One path segment, percent-encoded UTF-8 of at most 255 bytes, without slash or control characters"
        schema = {"type": "string", "minLength": 1, "maxLength": 255, "pattern": _NAME_PATTERN}
        schema["not"] = {"enum": [".", ".."]}
        found.append({"name": "name", "in": "path", "required": True, "description": says, "schema": schema})
        if operation.method == "get":
            wait = {"type": "number", "minimum": 0, "maximum": settings.download_wait_max}
            wait["default"] = settings.download_wait
            found.append({"name": "wait", "in": "query", "description": "seconds to wait", "schema": wait})
    return found
