"""Every error that a client can get: its status, and its one line, which says what to do next.

Any module may raise a `Problem`; `api.exchange` renders it, in one place. The lines never repeat what the client sent,
so nobody can smuggle anything into a terminal or a page.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Any

from relay.states import Outcome

#: The statuses that `curl --retry` tries again (7.88 and 8.22; of those from 400 to 511).
#: An upload of unknown length gets the other status instead, once some of it has arrived: see `Problem.forbid_retry`.
RETRIED = frozenset({408, 429, 500, 502, 503, 504})
FAILED_DEPENDENCY = 424


@dataclass(frozen=True)
class Spec:
    """One row of the table. `retry_after` is in seconds; None sends no Retry-After.

    `type` is the URI of the kind of problem, if there is a registered one (RFC 9457 section 3.1.1).
    """

    status: int
    title: str
    line: str
    retry_after: int | None = None
    type: str = "about:blank"


class Error(Enum):
    """The table. The keyword arguments of `Problem` fill in the `{braces}`."""

    BAD_NAME = Spec(400, "Bad name", "{why} Use PUT or GET /TOKEN/NAME with one percent-encoded path segment.")
    BAD_WAIT = Spec(400, "Bad wait", "wait= takes a number of seconds from 0 to {most:g}.")
    BAD_COUNT = Spec(400, "One downloader", "One upload serves one download here: retry without n=.")
    NO_RANGES = Spec(
        400,
        "No ranges",
        "An upload is a whole file, because nothing is stored here: retry without {header}.",
    )
    PART = Spec(
        416,
        "Only the rest",
        "Only all bytes from one on can be asked for, because nothing is stored here: use Range: bytes=N- with no end.",
    )
    OTHER_FILE = Spec(
        409, "Another file", "This upload has fewer bytes than you have already, so it is another file: start again."
    )
    INCONSISTENT_LENGTH = Spec(
        400,
        "Inconsistent length",
        "This upload's length, offset and Upload-Complete contradict each other, or an earlier request.",
        type="https://iana.org/assignments/http-problem-types#inconsistent-upload-length",
    )
    COMPLETED_UPLOAD = Spec(
        400,
        "Completed upload",
        "This upload is complete, nothing can be added to it: the downloader has the whole file.",
        type="https://iana.org/assignments/http-problem-types#completed-upload",
    )
    BAD_UPLOAD_FIELD = Spec(400, "Bad upload header", "{field} is needed here, once, and takes {values}.")
    OTHER_DRAFT = Spec(
        400,
        "Other draft",
        "Of the draft of resumable uploads, interop versions 8 and 9 are spoken here: send the whole file at once.",
    )
    BAD_DIGEST = Spec(
        400,
        "Bad digest",
        "Of Repr-Digest, sha-256 takes :BASE64: with the 32 bytes of the whole file's SHA-256; or leave it out.",
    )
    BAD_TYPE = Spec(400, "Bad Content-Type", "Content-Type takes at most 255 characters, without control characters.")
    NOT_HTTP = Spec(400, "Not HTTP", "This is not a valid HTTP/1.1 request: use curl, a browser or an HTTP library.")
    SECRET_NEEDED = Spec(
        401,
        "Secret needed",
        "Tokens are made for those who know a secret: send it as Authorization: Bearer SECRET.",
    )
    UNKNOWN_TOKEN = Spec(
        401, "Unknown token", "This token or link is unknown or has expired: get a token with POST /token."
    )
    LINK_ONLY = Spec(
        403, "Link for one thing", "This link can only {does} this one name: ask whoever gave it to you for the token."
    )
    BAD_RIGHT = Spec(400, "Bad link", "for= takes receive or send.")
    BAD_QR = Spec(
        400,
        "Bad QR code",
        "qr= takes a text of at most {most} characters, in which the word link in braces stands for the link.",
    )
    REVOKED = Spec(401, "Token revoked", "The token was revoked: get a new one with POST /token.")
    TOKEN_GONE = Spec(
        401,
        "Token gone",
        "The token is gone (expired, deleted, or evicted from a full Redis): get a new one with POST /token.",
    )
    OPERATORS_ONLY = Spec(
        401,
        "Operators only",
        "This needs the relay's admin secret, as a Bearer token or as the password of Basic (curl -u :SECRET).",
    )
    NOT_OFFERED = Spec(
        403,
        "Not offered",
        "Only the buttons of this relay's own status page may do this: reload the page at /status?admin, or use relay "
        "cancel.",
    )
    NO_PREFETCH = Spec(
        403,
        "Not ahead of time",
        "A download takes the upload, so it cannot be fetched ahead of time: open the address yourself.",
    )
    NO_CODE = Spec(
        403,
        "No code of pages",
        "A download takes the upload, so a page's script or style cannot come from here: serve it from a web server.",
    )
    NO_UPLOAD = Spec(
        404,
        "No such upload",
        "Nobody is uploading this name: start the upload, or wait longer with ?wait=SECONDS.",
    )
    UNKNOWN_UPLOAD = Spec(
        404, "Unknown upload", "This upload is unknown, or it has ended some minutes ago: upload the file again."
    )
    NOT_FOUND = Spec(404, "Not found", "Nothing is here: POST /token, then PUT and GET /TOKEN/NAME.")
    BROWSERS_ONLY = Spec(
        406,
        "A browser's page",
        "A browser or relay receive takes this link. With curl, get what follows the # instead, as /LINK/NAME.",
    )
    WRONG_METHOD = Spec(405, "Wrong method", "This address takes {allow}.")
    HEADER_TIMEOUT = Spec(
        408, "Header too slow", "The request's header did not arrive within {seconds:g} s: try again."
    )
    STALLED = Spec(408, "Stalled", "Nothing moved for {seconds:g} s, so the transfer was ended: try again.")
    NAME_IN_USE = Spec(
        409, "Name in use", "This name has an upload already: pick another name, or wait until it ends.", 1
    )
    MISMATCHING_OFFSET = Spec(
        409,
        "Mismatching offset",
        "The downloader has the file up to byte {offset}: go on from there.",
        type="https://iana.org/assignments/http-problem-types#mismatching-upload-offset",
    )
    SUPERSEDED = Spec(409, "Superseded", "A later request of this upload has taken the place of this one.")
    TAKEN = Spec(
        409,
        "Already downloading",
        "Somebody is downloading this upload already; one upload serves one download.",
    )
    TOO_LATE = Spec(
        409, "Too late", "The downloader has been handed the last bytes, so this transfer cannot be cancelled any more."
    )
    NO_LENGTH = Spec(
        411,
        "Length required",
        "An upload needs Content-Length, or Transfer-Encoding: chunked with HTTP/1.1: use curl -T FILE.",
    )
    CANCELLED = Spec(410, "Cancelled", "The transfer was cancelled by DELETE: upload again if that was not you.")
    CONDITION_FAILED = Spec(
        412,
        "Condition failed",
        "What is here is not what the condition asks for, and an upload replaces nothing: retry without {header}.",
    )
    TOO_LARGE = Spec(413, "Too large", "An upload may have at most {most} bytes here: split the file.")
    HEADER_TOO_LARGE = Spec(
        431,
        "Header too large",
        "A request's header, a chunk's extensions or the trailers may have at most {most} bytes: send less.",
    )
    TOO_LONG = Spec(413, "Too long", "A transfer may last {seconds:g} s at most here: split the file.")
    FORM = Spec(
        415,
        "A form",
        "A form would arrive with its envelope around the file: send the file itself, with curl -T FILE.",
    )
    BAD_CODING = Spec(
        415,
        "Content-Encoding",
        "The bytes are passed on as they are, without a Content-Encoding: retry without it, and decode after the "
        "download.",
    )
    NOT_PARTIAL = Spec(
        415, "Not a part", "Send the rest of an upload with PATCH and Content-Type: application/partial-upload."
    )
    CROWDED = Spec(
        429,
        "Token crowded",
        "This token has as many transfers as it may: wait until one ends, or get another token.",
        5,
    )
    SPENT = Spec(
        429, "Token spent", "This token has carried all but {most} of the bytes it may: get another with POST /token."
    )
    TOO_MANY = Spec(429, "Too many", "Too many {what}: try again in {seconds:.0f} s.")
    INTERNAL = Spec(500, "Internal error", "This is a bug in the relay; its operator finds the cause in the log.")
    UNKNOWN_CODING = Spec(
        501, "Unknown transfer coding", "The only Transfer-Encoding understood here is chunked: send the file as it is."
    )
    DOWNLOADER_GONE = Spec(
        502,
        "Downloader gone",
        "The downloader left after {sent} bytes, the file did not arrive: upload it again.",
    )
    NODE_LOST = Spec(
        502, "Node lost", "The relay node of the other side died after {sent} bytes: upload the file again."
    )
    STORE_DOWN = Spec(503, "Store unavailable", "The relay cannot reach its Redis: try again in a few seconds.", 5)
    STORE_FULL = Spec(503, "Store full", "The relay's Redis is out of memory: try again in a few seconds.", 5)
    STORE_LOST = Spec(503, "Store lost", "The relay's Redis lost this transfer after {sent} bytes: try again.", 2)
    FINISHING = Spec(
        503, "Finishing", "The downloader is being handed the last bytes: ask again in a moment.", retry_after=1
    )
    DRAINING = Spec(503, "Draining", "This relay node is shutting down: try again, another node will answer.", 1)
    NO_DOWNLOADER = Spec(
        504,
        "No downloader",
        "Nobody came to download this within {seconds:g} s: agree on a time and upload again.",
    )
    HTTP_VERSION = Spec(505, "HTTP/1.1 needed", "Only HTTP/1.1 and HTTP/1.0 are spoken here: use HTTP/1.1.")
    HTTP_1_0 = Spec(
        505,
        "HTTP/1.1 needed",
        "This upload's length is unknown, and HTTP/1.0 cannot tell a whole file from a cut-off one: use HTTP/1.1.",
    )

    @property
    def type(self) -> str:
        """The word for scripts: the `code` of the problem JSON, and the `reason` in logs."""
        return self.name.lower()


class Problem(Exception):
    """An error on its way to a client."""

    def __init__(self, error: Error, **details: Any) -> None:
        super().__init__(error.name)
        self.error = error
        self.status = error.value.status
        self.line = error.value.line.format(**details)
        self.details = details
        #: Seconds after which to try again; None if that is useless.
        self.retry_after: int | None = error.value.retry_after

    def forbid_retry(self) -> None:
        """Change the status if curl's --retry would send the request again, although it cannot send all of it again.

        curl retries six statuses. It begins a file again at its start, but a pipe where it stopped reading: a second
        download would get the rest only, and both sides 200. 424 (RFC 4918 section 11.4) says that the request
        depended on something else that failed: the download, the other node, Redis. Among the statuses that curl does
        not retry, none of RFC 9110 says this: 409 is a conflict for the user to resolve, 410 is permanent.
        """
        if self.status in RETRIED:
            self.status, self.retry_after = FAILED_DEPENDENCY, None

    def __repr__(self) -> str:
        return f"<Problem {self.status} {self.error.name}>"


class StoreUnavailable(Problem):
    """Redis did not reply in time, or refused a command."""

    def __init__(self, error: Error = Error.STORE_DOWN) -> None:
        super().__init__(error)


_TO_UPLOADER: dict[Outcome, Error] = {
    Outcome.NO_DOWNLOADER: Error.NO_DOWNLOADER,
    Outcome.UPLOADER_GONE: Error.NAME_IN_USE,  # by the upload that took the name over from this one
    Outcome.DOWNLOADER_GONE: Error.DOWNLOADER_GONE,
    Outcome.NODE_LOST: Error.NODE_LOST,
    Outcome.CANCELLED: Error.CANCELLED,
    Outcome.REVOKED: Error.REVOKED,
    Outcome.TOO_LARGE: Error.TOO_LARGE,
    Outcome.TOO_LONG: Error.TOO_LONG,
    Outcome.STALLED: Error.STALLED,
    Outcome.DRAINED: Error.DRAINING,
    Outcome.STORE_LOST: Error.STORE_LOST,
}


def problem_for_uploader(outcome: Outcome, *, sent: int, seconds: float, most: int) -> Problem:
    """Return what the uploader is told.

    `sent` is the bytes that the downloader had, `seconds` the limit that passed, `most` the maximum size in bytes.
    """
    return Problem(_TO_UPLOADER[outcome], sent=sent, seconds=seconds, most=most)


def problem_for_downloader(outcome: Outcome, *, seconds: float) -> Problem:
    """Return what the downloader is told if its response has not begun. After that it can only be cut off."""
    if outcome in (Outcome.NODE_LOST, Outcome.STORE_LOST):
        return Problem(Error.STORE_LOST, sent=0)
    if outcome in (Outcome.CANCELLED, Outcome.REVOKED, Outcome.TOO_LONG, Outcome.STALLED, Outcome.DRAINED):
        return Problem(_TO_UPLOADER[outcome], seconds=seconds)
    return Problem(Error.NO_UPLOAD)


class ClientGone(Exception):
    """The client of this side has left."""
