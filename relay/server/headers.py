"""Headers: those that every response has, and what those of a request mean. Pure: nothing is imported from relay."""

import re
from collections.abc import Collection, Mapping

#: Headers of every response. A download must never run in the relay's own origin, whatever was uploaded.
SAFE_HEADERS = {
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "x-robots-tag": "noindex, nofollow",
}

#: No real one is longer: RFC 6838 section 4.2 allows 127 characters on either side of the slash.
_MEDIA_TYPE = re.compile(r"[\t\x20-\x7e\x80-\xff]{0,255}")
#: Headers of requests that a browser makes of its own accord, before anybody has clicked (the last two are those of
#: old versions of Safari and Firefox).
_AHEAD_OF_TIME = ("sec-purpose", "purpose", "x-purpose", "x-moz")
#: The destinations of requests for what a browser would run.
_CODE = {"audioworklet", "paintworklet", "script", "serviceworker", "sharedworker", "style", "worker", "xslt"}
#: RFC 9110 section 12.4.2.
_QUALITY = re.compile(r"0(\.[0-9]{0,3})?|1(\.0{0,3})?")
#: Headers that pages of other origins may read in a response, and set in a request, beyond those that they always may.
_EXPOSED = (
    "Relay-Node, Relay-State, Relay-Delivered, Relay-Outcome, ETag, Content-Disposition, Content-Length, Retry-After, "
    "Allow, Location, Accept-Patch, "
    "Upload-Offset, Upload-Complete, Upload-Length, Upload-Limit, Repr-Digest"
)
_ALLOWED = (
    "Authorization, Content-Type, Content-Disposition, Repr-Digest, "
    "Upload-Offset, Upload-Complete, Upload-Length, Upload-Draft-Interop-Version"
)
_JSON = ("application/json", "application/problem+json")


def cors_headers(origins: Collection[str], headers: Mapping[str, str], *, methods: str) -> dict[str, str]:
    """Return the headers that let pages of these origins (`*`: all) use the relay; none for requests from elsewhere.

    Credentials are not allowed, so browsers send none by themselves, and a page has to know the token.
    Source: the Fetch standard, section 3.3 (CORS protocol).
    """
    if not origins:
        return {}
    origin = headers.get("origin", "")
    allowed = "*" if "*" in origins else origin if origin in origins else ""
    answer = {} if "*" in origins else {"vary": "Origin"}
    if origin and allowed:
        answer |= {"access-control-allow-origin": allowed, "access-control-expose-headers": _EXPOSED}
        if "access-control-request-method" in headers:
            answer |= {"access-control-allow-methods": methods, "access-control-allow-headers": _ALLOWED}
            answer["access-control-max-age"] = "7200"  # the maximum that Chromium accepts, in seconds
    return answer


def is_media_type(value: str) -> bool:
    """Return whether a Content-Type can be kept and passed on: at most 255 characters, no control characters."""
    return _MEDIA_TYPE.fullmatch(value) is not None


def is_form(media_type: str) -> bool:
    """Return whether a Content-Type is that of a form with files in it: an envelope of parts, as `curl -F` sends it."""
    return media_type.partition(";")[0].strip().lower() == "multipart/form-data"


def has_coding(content_encoding: str) -> bool:
    """Return whether `Content-Encoding` names any coding but `identity`, which changes nothing."""
    return any(coding.strip().lower() not in ("", "identity") for coding in content_encoding.split(","))


def is_prefetch(headers: Mapping[str, str]) -> bool:
    """Return whether a browser asks of its own accord, for a page that nobody has opened yet."""
    purposes = " ".join([headers[name] for name in _AHEAD_OF_TIME if name in headers]).lower()
    return "prefetch" in purposes or "preview" in purposes


def is_code(headers: Mapping[str, str]) -> bool:
    """Return whether a browser asks for a script or a style. `Sec-Fetch-Dest` is of W3C's Fetch Metadata.

    An upload must not run in the relay's origin, where the page has tokens, nor be taken by an attempt to.
    """
    return headers.get("service-worker", "").lower() == "script" or headers.get("sec-fetch-dest", "").lower() in _CODE


def wants_json(accept: str) -> bool:
    """Return whether `Accept` names JSON, and prefers no form of text to it. A wildcard does not name it."""
    if "json" not in accept.lower():  # as for all but programs, so this is what usually is to be fast
        return False
    ranges = _qualities(accept)
    json = max((ranges.get(name, 0.0) for name in _JSON), default=0.0)
    return json > 0 and json >= max((q for name, q in ranges.items() if name.startswith("text/")), default=0.0)


def wants_html(accept: str) -> bool:
    """Return whether `Accept` names HTML, as browsers do. A wildcard does not name it."""
    return _qualities(accept).get("text/html", 0.0) > 0


def _qualities(accept: str) -> dict[str, float]:
    """Return the media ranges of an `Accept` header, each with its weight from 0 to 1; 0 if that cannot be read."""
    found: dict[str, float] = {}
    for part in accept.lower().split(","):
        name, *parameters = (piece.strip() for piece in part.split(";"))
        weights = [value.strip() for key, _, value in (p.partition("=") for p in parameters) if key.strip() == "q"]
        weight = weights[0] if weights else "1"
        found[name] = max(found.get(name, 0.0), float(weight) if _QUALITY.fullmatch(weight) else 0.0)
    return found
