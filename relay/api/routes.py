"""Every path and method of the API, in one table: who serves it, how it may fail, and what the document says of it.

`app` builds its routes from this table, and `openapi` builds its document from it.
"""

from collections.abc import Iterator

from starlette.responses import JSONResponse

from relay.api import health, page, resumable, status, tokens, transfers, upload_fields
from relay.api.exchange import Exchange, Handler
from relay.api.openapi import Operation, document
from relay.api.schemas import (
    ANY_TEXT,
    BYTES,
    CANCEL_FORM,
    HTML,
    INTEGER,
    LINK_MADE,
    STATUS,
    STRING,
    TEXT,
    TRANSFERS,
    Schema,
    head_wait_parameter,
    json,
    qr_parameter,
    right_parameter,
    upload_field,
    wait_parameter,
)
from relay.errors import Error

#: The paths whose segments clients choose.
TOKEN, NAME, UPLOAD, LINK = "/{token}", "/{token}/{name}", "/{token}/{name}/{upload}", "/{token}/{name}/link"
#: The page's own files.
ASSET = "/page/{file}"
#: Paths that browsers and robots ask for unasked. As tokens, they would count as wrong guesses.
NOTHING = ("/apple-touch-icon.png", "/apple-touch-icon-precomposed.png", "/sitemap.xml")

_STORE = (Error.STORE_DOWN, Error.STORE_FULL)
_TOKEN = (Error.UNKNOWN_TOKEN, Error.TOO_MANY, *_STORE)
_NAME = (Error.BAD_NAME, Error.LINK_ONLY, *_TOKEN)
_OPERATORS = (Error.OPERATORS_ONLY, Error.TOO_MANY, *_STORE)
_UPLOAD = (
    *_NAME,
    Error.BAD_COUNT,
    Error.BAD_DIGEST,
    Error.BAD_TYPE,
    Error.NO_RANGES,
    Error.CONDITION_FAILED,
    Error.FORM,
    Error.BAD_CODING,
    Error.REVOKED,
    Error.TOKEN_GONE,
    Error.STALLED,
    Error.NAME_IN_USE,
    Error.NO_LENGTH,
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
_CREATION = (*_UPLOAD, Error.BAD_UPLOAD_FIELD, Error.INCONSISTENT_LENGTH, Error.OTHER_DRAFT, Error.SUPERSEDED)
_RETURN = (*_NAME, Error.UNKNOWN_UPLOAD, Error.FINISHING)
_STATUS = (
    *_RETURN,
    Error.REVOKED,
    Error.STALLED,
    Error.CANCELLED,
    Error.TOO_LARGE,
    Error.TOO_LONG,
    Error.DOWNLOADER_GONE,
    Error.NODE_LOST,
    Error.STORE_LOST,
    Error.DRAINING,
    Error.NO_DOWNLOADER,
    Error.SUPERSEDED,
)
_DESCRIBE = (*_STATUS, Error.BAD_DIGEST, Error.COMPLETED_UPLOAD)
_APPEND = (
    *_STATUS,
    Error.BAD_DIGEST,
    Error.BAD_UPLOAD_FIELD,
    Error.INCONSISTENT_LENGTH,
    Error.COMPLETED_UPLOAD,
    Error.MISMATCHING_OFFSET,
    Error.NO_LENGTH,
    Error.SPENT,
    Error.NOT_PARTIAL,
    Error.BAD_CODING,
)
_COMPLETE = upload_field("Upload-Complete", "Whether the file ends where the body ends", r"^\?[01]$")
_LENGTH = upload_field("Upload-Length", "The length of the file in bytes", "^[0-9]{1,15}$")
_DIGEST = upload_field(
    "Repr-Digest", "The SHA-256 of the whole file, for the downloader", "sha-256=:[A-Za-z0-9+/]{43}=:"
)
#: What answers a question about an upload that has ended badly.
_ENDED = (424, "It ended with one of 408, 502, 503 and 504; these would make a client ask again.")
_FIND = (
    *_NAME,
    Error.BAD_WAIT,
    Error.BAD_COUNT,
    Error.NO_UPLOAD,
    Error.CONDITION_FAILED,
    Error.CROWDED,
    Error.DRAINING,
)
_DOWNLOAD = (
    *_FIND,
    Error.PART,
    Error.OTHER_FILE,
    Error.NO_PREFETCH,
    Error.NO_CODE,
    Error.REVOKED,
    Error.TOKEN_GONE,
    Error.STALLED,
    Error.TAKEN,
    Error.CANCELLED,
    Error.TOO_LONG,
    Error.STORE_LOST,
    Error.HTTP_1_0,
)
#: What a 304 means.
_SAME_FILE = "The browser has the same file already."
_UNMODIFIED = "There is an upload, and `If-None-Match: *` asks for none. It is not taken."


async def show_document(exchange: Exchange) -> None:
    """Serve the OpenAPI document of this table."""
    await exchange.answer(JSONResponse(document(OPERATIONS, exchange.relay.settings)))


def _get_and_head(
    path: str,
    handler: Handler,
    summary: str,
    says: str,
    *,
    status: int = 200,
    content: Schema | None = None,
    errors: tuple[Error, ...] = (),
    unmodified: str = "",
) -> Iterator[Operation]:
    for method, body in (("GET", content), ("HEAD", None)):
        yield Operation(
            method, path, handler, summary, says, status=status, content=body, errors=errors, unmodified=unmodified
        )


OPERATIONS: tuple[Operation, ...] = (
    Operation(
        "POST",
        "/token",
        tokens.make_token,
        "Make a token",
        "The token and a newline.",
        content=TEXT | json(token=STRING, expires_in=INTEGER),
        errors=(Error.SECRET_NEEDED, Error.TOO_MANY, *_STORE, Error.DRAINING),
        is_guarded=True,
    ),
    Operation(
        "GET",
        TOKEN,
        tokens.show_token,
        "Tell how long a token has left, and its transfers; not a use of it",
        "Seconds, and a line for each transfer.",
        content=TEXT | json(expires_in=INTEGER, transfers=TRANSFERS),
        errors=_TOKEN,
    ),
    Operation(
        "DELETE",
        TOKEN,
        tokens.revoke_token,
        "Revoke a token and end its transfers",
        "It is revoked.",
        status=204,
        errors=(*_TOKEN, Error.CONDITION_FAILED),
    ),
    *(
        Operation(
            method,
            NAME,
            resumable.upload,
            "Upload: waits for a downloader, then streams. With Upload-Complete it can be resumed",
            "The downloader has the last byte.",
            also=((201, "The upload exists; Location is the address at which it goes on."),),
            fields=(_COMPLETE, _LENGTH, _DIGEST),
            content=TEXT | json(outcome=STRING, bytes=INTEGER),
            errors=_CREATION,
            takes=BYTES,
        )
        for method in ("PUT", "POST")
    ),
    Operation(
        "GET",
        NAME,
        transfers.download,
        "Download: waits for an upload, then streams",
        "The bytes, as they arrive. Whole only if the response ends as HTTP says it must.",
        content=BYTES,
        also=((206, "The bytes from the first one of the Range on, as they arrive."),),
        unmodified=_UNMODIFIED,
        errors=_DOWNLOAD,
        query=(wait_parameter,),
    ),
    Operation(
        "HEAD",
        NAME,
        transfers.head,
        "The headers that a GET would get, and how far it is; takes nothing, and waits only if ?wait= says so",
        "Somebody uploads it. Relay-State says how it stands, Relay-Delivered how many bytes the downloader has.",
        unmodified=_UNMODIFIED,
        errors=_FIND,
        query=(head_wait_parameter,),
    ),
    Operation(
        "DELETE",
        NAME,
        transfers.cancel,
        "End a transfer, on both sides",
        "It is ended.",
        status=204,
        errors=(*_NAME, Error.NO_UPLOAD, Error.CONDITION_FAILED, Error.TOO_LATE),
    ),
    Operation(
        "POST",
        LINK,
        transfers.make_link,
        "Make a link that can only receive this name, or with ?for=send only send it; not a use of the token",
        "The link and a newline: it stands in the place of the token, in `/LINK/NAME`.",
        content=TEXT | LINK_MADE,
        errors=(Error.BAD_NAME, Error.BAD_RIGHT, Error.BAD_QR, *_TOKEN),
        query=(right_parameter, qr_parameter),
    ),
    Operation(
        "HEAD",
        UPLOAD,
        resumable.head,
        "How far a resumable upload is; a request that brings bytes is ended",
        "Upload-Offset is the byte to go on from, Upload-Complete whether the downloader has everything.",
        status=204,
        also=(_ENDED,),
        errors=_STATUS,
    ),
    Operation(
        "PATCH",
        UPLOAD,
        resumable.append,
        "Go on with a resumable upload: waits for a downloader, then streams",
        "The downloader has the last byte.",
        content=TEXT | json(outcome=STRING, bytes=INTEGER),
        errors=_APPEND,
        takes={upload_fields.PARTIAL: BYTES["*/*"]},
        also=((204, "The downloader has all of this part; the file goes on."),),
        fields=(
            _COMPLETE | {"required": True},
            upload_field("Upload-Offset", "The byte of the file at which the body begins", "^[0-9]{1,15}$")
            | {"required": True},
            _LENGTH,
            _DIGEST,
        ),
    ),
    Operation(
        "POST",
        UPLOAD,
        resumable.describe,
        "Give the digest of a resumable upload's whole file, while another request may bring its bytes",
        "The downloader can ask for it.",
        status=204,
        also=(_ENDED,),
        errors=_DESCRIBE,
        fields=(_DIGEST | {"required": True},),
    ),
    Operation(
        "DELETE",
        UPLOAD,
        resumable.cancel,
        "End a resumable upload, on both sides",
        "It is ended.",
        status=204,
        errors=(*_RETURN, Error.TOO_LATE),
    ),
    *_get_and_head(
        "/",
        page.show_home,
        "As /status; for a browser, the page that sends files is above it",
        "For a browser, a terminal or a script.",
        content=STATUS,
        errors=_OPERATORS,
    ),
    *_get_and_head(
        "/status",
        status.show_status,
        "Active transfers, nodes and tokens; names only with RELAY_ADMIN_SECRET",
        "For a browser, a terminal or a script.",
        content=STATUS,
        errors=_OPERATORS,
    ),
    Operation(
        "POST",
        "/status/cancel",
        status.cancel,
        "The button of an operator's status page that cancels a transfer. `which` is what the page says, and signed",
        "It is cancelled. Without `sure=yes`: a page that asks whether to do that.",
        also=((303, "It is cancelled, and a browser goes back to the status page."),),
        content=TEXT | HTML,
        errors=(*_OPERATORS, Error.NOT_OFFERED, Error.NO_UPLOAD, Error.TOO_LATE),
        form=CANCEL_FORM,
    ),
    *_get_and_head(
        "/receive",
        page.show_receive,
        "The page that receives a file: /receive#LINK/NAME",
        "For a browser. It takes nothing until a person says so.",
        content=HTML,
        unmodified=_SAME_FILE,
        errors=(Error.BROWSERS_ONLY,),
    ),
    *_get_and_head(
        ASSET,
        page.show_asset,
        "A style, script or picture of the page",
        "The file.",
        content=ANY_TEXT,
        unmodified=_SAME_FILE,
        errors=(Error.NOT_FOUND,),
    ),
    *_get_and_head("/healthz", health.healthz, "Alive?", "Alive.", content=TEXT),
    *_get_and_head(
        "/readyz",
        health.readyz,
        "Ready to take work?",
        "Redis answers a write, and the node does not drain.",
        content=TEXT,
        errors=(*_STORE, Error.DRAINING),
    ),
    *_get_and_head(
        "/metrics",
        status.show_metrics,
        "This node's numbers, for Prometheus",
        "In the form that Accept asks for.",
        content=ANY_TEXT,
        errors=_OPERATORS,
    ),
    Operation("GET", "/openapi.json", show_document, "This document", "OpenAPI 3.1.", content=json()),
    *_get_and_head(
        "/version", health.version, "The node's version", "Its version.", content=TEXT | json(version=STRING)
    ),
    *_get_and_head("/favicon.ico", health.favicon, "The icon that browsers ask for", "There is none.", status=204),
    *_get_and_head("/robots.txt", health.robots, "Where robots may go", "Nowhere.", content=TEXT),
    *(
        Operation(
            "GET",
            path,
            health.not_found,
            "Nothing",
            Error.NOT_FOUND.value.line,
            status=404,
            content=TEXT,
            errors=(Error.NOT_FOUND,),
        )
        for path in NOTHING
    ),
)


def handlers_of(path: str) -> dict[str, Handler]:
    """Return the handler of each method that a path of the table takes."""
    return {operation.method: operation.handler for operation in OPERATIONS if operation.path == path}
