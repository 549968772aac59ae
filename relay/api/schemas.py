"""The JSON schemas from which the OpenAPI document is built: what a request holds, and what a response holds."""

from typing import Any

from relay.errors import Error
from relay.page.files import ASSETS
from relay.settings import Settings

Schema = dict[str, Any]


def json(**properties: Schema) -> Schema:
    """Return the content of a JSON object that always has these properties."""
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    return {"application/json": {"schema": schema}}


INTEGER: Schema = {"type": "integer", "minimum": 0}
STRING: Schema = {"type": "string"}
NUMBER: Schema = {"type": "number", "minimum": 0}
BOOLEAN: Schema = {"type": "boolean"}
#: How many transfers ended, by outcome.
_OUTCOMES: Schema = {"type": "object", "additionalProperties": INTEGER}


def _or_null(schema: Schema) -> Schema:
    return schema | {"type": [schema["type"], "null"]}


def _list(operators: tuple[str, ...] = (), **properties: Schema) -> Schema:
    """Return an array of objects with these properties, all of which they have but those for `operators`."""
    required = [name for name in properties if name not in operators]
    return {"type": "array", "items": {"type": "object", "properties": properties, "required": required}}


TEXT: Schema = {"text/plain": {"schema": {"type": "string"}}}
BYTES: Schema = {"*/*": {"schema": {"type": "string", "format": "binary"}}}
HTML: Schema = {"text/html": {"schema": STRING}}
ANY_TEXT: Schema = {"*/*": {"schema": STRING}}

#: The transfers of one token.
TRANSFERS: Schema = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {"name": STRING, "state": STRING, "length": {"type": ["integer", "null"]}, "delivered": INTEGER},
        "required": ["name", "state", "length", "delivered"],
    },
}
#: A new link, with the rows of its QR code if that was asked for.
LINK_MADE = json(**{"link": STRING, "for": STRING})
LINK_MADE["application/json"]["schema"]["properties"]["qr"] = {"type": "array", "items": STRING}
#: The status page in its three forms.
STATUS: Schema = (
    TEXT
    | {"text/html": {"schema": STRING}}
    | json(
        streaming=INTEGER,
        waiting=INTEGER,
        interrupted=INTEGER,
        tokens=INTEGER,
        rate=NUMBER,
        history={"type": "array", "items": INTEGER},
        outcomes=_OUTCOMES,
        redis=_or_null(_list(("version",), used=INTEGER, most=INTEGER, policy=STRING, evicts=BOOLEAN, version=STRING)),
        nodes=_list(
            ("host",),
            node=STRING,
            alive=BOOLEAN,
            draining=BOOLEAN,
            age=NUMBER,
            version=STRING,
            started=INTEGER,
            uptime=_or_null(INTEGER),
            waiting=INTEGER,
            interrupted=INTEGER,
            streaming=INTEGER,
            rate_in=NUMBER,
            rate_out=NUMBER,
            ended=INTEGER,
            complete=INTEGER,
            outcomes=_OUTCOMES,
            host=STRING,
        ),
        transfers=_list(
            ("name",),
            id=STRING,
            state=STRING,
            token=STRING,
            uploader=STRING,
            downloader=_or_null(STRING),
            length=_or_null(INTEGER),
            delivered=INTEGER,
            rate=NUMBER,
            seconds=NUMBER,
            remaining=_or_null(NUMBER),
            left={"type": ["number", "null"]},
            leg=INTEGER,
            name=STRING,
        ),
        expiring=_list(token=STRING, expires_in=INTEGER, uses=INTEGER),
    )
)
#: What the button of an operator's page sends.
CANCEL_FORM: Schema = {
    "application/x-www-form-urlencoded": {
        "schema": {"type": "object", "properties": {"which": STRING, "sure": STRING}, "required": ["which"]}
    }
}
#: The body of an error, if Accept asks for JSON.
PROBLEM: Schema = {
    "description": "RFC 9457; `code` is the word for scripts",
    "type": "object",
    "properties": {
        "type": STRING,
        "code": {"type": "string", "enum": [error.type for error in Error]},
        "title": STRING,
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": STRING,
    },
    "required": ["type", "code", "title", "status", "detail"],
}

_TOKEN_PARAMETER: Schema = {
    "name": "token",
    "in": "path",
    "required": True,
    "description": "A token; or, if the operation allows it, a link to the name",
    "schema": {"type": "string", "pattern": "^([A-Za-z0-9]{30}|[A-Za-z0-9]{8}[rs][0-9a-f]{32})$"},
}
_NAME_PARAMETER: Schema = {
    "name": "name",
    "in": "path",
    "required": True,
    "description": "One path segment, percent-encoded UTF-8 of at most 255 bytes, without slash and controls",
    "schema": {
        "type": "string",
        "minLength": 1,
        "maxLength": 255,
        # `names.parse_name` as a regular expression, which cannot say that 255 is a number of bytes.
        "pattern": r"^[^/\\\u0000-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]+$",
        "not": {"enum": [".", ".."]},
    },
}


_UPLOAD_PARAMETER: Schema = {
    "name": "upload",
    "in": "path",
    "required": True,
    "description": "The last segment of the Location that the creation of the upload has returned",
    "schema": {"type": "string", "pattern": "^[0-9a-f]{16}[A-Za-z0-9]{22}$"},
}


_FILE_PARAMETER: Schema = {
    "name": "file",
    "in": "path",
    "required": True,
    "description": "The name of a file of the page",
    "schema": {"type": "string", "enum": [*ASSETS]},
}


def upload_field(name: str, says: str, pattern: str) -> Schema:
    """Return a header field of resumable uploads as a parameter."""
    schema = {"type": "string", "pattern": pattern}
    return {"name": name, "in": "header", "description": says, "schema": schema}


def path_parameters(path: str) -> list[Schema]:
    """Return the parameters in the `{braces}` of a path."""
    known = {
        "{token}": _TOKEN_PARAMETER,
        "{name}": _NAME_PARAMETER,
        "{upload}": _UPLOAD_PARAMETER,
        "{file}": _FILE_PARAMETER,
    }
    return [parameter for braces, parameter in known.items() if braces in path]


def wait_parameter(settings: Settings) -> Schema:
    """Return the parameter `?wait=` with this node's limits."""
    schema = {"type": "number", "minimum": 0, "maximum": settings.download_wait_max, "default": settings.download_wait}
    return {"name": "wait", "in": "query", "description": "seconds to wait", "schema": schema}


def right_parameter(settings: Settings) -> Schema:
    """Return the parameter `?for=`, which says what a link is to allow."""
    schema = {"type": "string", "enum": ["receive", "send"], "default": "receive"}
    return {"name": "for", "in": "query", "description": "what the link allows", "schema": schema}


def qr_parameter(settings: Settings) -> Schema:
    """Return the parameter `?qr=`, which asks for a QR code of a new link."""
    says = "the text of a QR code, with `{link}` for the link: as JSON, the answer has it as rows of 1 (dark) and 0"
    return {"name": "qr", "in": "query", "description": says, "schema": STRING}


def head_wait_parameter(settings: Settings) -> Schema:
    """Return the same for HEAD, which does not wait by default."""
    parameter = wait_parameter(settings)
    return parameter | {"schema": parameter["schema"] | {"default": 0}}
