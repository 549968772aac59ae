"""The OpenAPI document, made from the table of operations in `routes`.

An operation's errors are those of `errors`, so their lines and statuses cannot differ from what is served.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from relay import __version__
from relay.api.exchange import Handler
from relay.api.schemas import INTEGER, PROBLEM, TEXT, Schema, path_parameters
from relay.errors import FAILED_DEPENDENCY, RETRIED, Error
from relay.settings import Settings

#: Errors that any request may meet: those of the HTTP parser, which does not know the path, and a bug of ours.
_ANY = (
    Error.NOT_HTTP,
    Error.HEADER_TIMEOUT,
    Error.HEADER_TOO_LARGE,
    Error.INTERNAL,
    Error.UNKNOWN_CODING,
    Error.HTTP_VERSION,
)


class Operation(NamedTuple):
    """One method of one path: the handler that serves it, and what the document says of it."""

    method: str
    #: The path, with `{token}` and `{name}` for the segments that clients choose.
    path: str
    handler: Handler
    summary: str
    #: Says what a success means, in the document.
    says: str
    status: int = 200
    #: The response's content by media type; None if a success has no body.
    content: Schema | None = None
    errors: tuple[Error, ...] = ()
    #: The request body's content by media type; None if none is read.
    takes: Schema | None = None
    #: The content of a form by media type; None if none is read.
    form: Schema | None = None
    #: Says what a 304 means; empty if it cannot be the answer.
    unmodified: str = ""
    #: Parameters in the query, which may depend on the settings.
    query: tuple[Callable[[Settings], Schema], ...] = ()
    #: Other statuses of a success, and what each means.
    also: tuple[tuple[int, str], ...] = ()
    #: Header fields of the request that mean something.
    fields: tuple[Schema, ...] = ()
    #: Whether it takes a secret if `RELAY_TOKEN_SECRET` is set.
    is_guarded: bool = False


def document(operations: Iterable[Operation], settings: Settings) -> dict[str, Any]:
    """Return the document, with this node's limits."""
    paths: dict[str, Any] = defaultdict(dict)
    for operation in operations:
        paths[operation.path][operation.method.lower()] = _describe(operation, settings)
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
            "schemas": {"Problem": PROBLEM},
        },
    }


def _describe(operation: Operation, settings: Settings) -> Schema:
    responses: Schema = {str(operation.status): {"description": operation.says}}
    if operation.content is not None:
        responses[str(operation.status)]["content"] = operation.content
    responses |= {str(status): {"description": says} for status, says in operation.also}
    if operation.unmodified:
        responses["304"] = {"description": operation.unmodified}
    by_status: dict[int, list[Error]] = defaultdict(list)
    for error in (*operation.errors, *_ANY):
        by_status[error.value.status].append(error)
    if operation.takes is not None:
        by_status[FAILED_DEPENDENCY] = [error for status in sorted(RETRIED) for error in by_status.get(status, [])]
    for status, errors in sorted(by_status.items()):
        responses[str(status)] = _failure(errors, has_content=operation.method != "HEAD")
    described: Schema = {"summary": operation.summary, "responses": responses}
    parameters = [*path_parameters(operation.path), *operation.fields]
    parameters += [parameter(settings) for parameter in operation.query]
    if parameters:
        described["parameters"] = parameters
    if operation.takes is not None:
        described["requestBody"] = {"description": "Any bytes, of any length", "content": operation.takes}
    if operation.form is not None:
        described["requestBody"] = {"description": "A form", "content": operation.form}
    if operation.is_guarded and settings.is_guarded:
        described["security"] = [{"secret": []}]
    return described


def _failure(errors: list[Error], *, has_content: bool) -> Schema:
    """Return the response of one status, with the word and the line of each of its errors in the description."""
    failure: Schema = {"description": "\n".join(f"- `{e.type}`: {e.value.line}" for e in errors)}
    if any(error.value.retry_after is not None or error is Error.TOO_MANY for error in errors):
        failure["headers"] = {"Retry-After": {"description": "seconds", "schema": INTEGER}}
    if has_content:
        failure["content"] = TEXT | {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return failure
