"""Headers: what every answer has, and what a request's mean.  Pure: nothing is imported from relay."""

import re
from collections.abc import Collection, Mapping

#: On every answer.  A download must never run in the relay's own origin, whatever was uploaded.
SAFE_HEADERS = {
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "x-robots-tag": "noindex, nofollow",
}

#: Longer ones are nobody's: RFC 6838 section 4.2 allows 127 characters on either side of the slash.
_MEDIA_TYPE = re.compile(r"[\t\x20-\x7e\x80-\xff]{0,255}")
#: What browsers ask with of their own accord, before anybody has clicked (the older two are Safari's and Firefox's).
_AHEAD_OF_TIME = ("sec-purpose", "purpose", "x-purpose", "x-moz")
#: RFC 9110 section 12.4.2.
_QUALITY = re.compile(r"0(\.[0-9]{0,3})?|1(\.0{0,3})?")
#: What pages of other origins may read of an answer, and say in a request, beyond what they may anyway.
_EXPOSED = "Relay-Node, Content-Disposition, Content-Length, Retry-After, Allow"
_ALLOWED = "Authorization, Content-Type"
_JSON = ("application/json", "application/problem+json")


def cors_headers(origins: Collection[str], headers: Mapping[str, str], *, methods: str) -> dict[str, str]:
    """What lets pages of these origins (`*`: all) use the relay; empty for requests from elsewhere.

    No credentials are allowed for: browsers then send none by themselves, and a page has to know the token.
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
            answer["access-control-max-age"] = "7200"  # what Chromium takes at most
    return answer


def is_media_type(value: str) -> bool:
    """Whether a Content-Type can be kept and passed on: at most 255 characters, none of them a control character."""
    return _MEDIA_TYPE.fullmatch(value) is not None


def is_prefetch(headers: Mapping[str, str]) -> bool:
    """Whether a browser asks on its own account, for a page or a service worker that nobody has opened yet."""
    purposes = " ".join(headers.get(name, "") for name in _AHEAD_OF_TIME).lower()
    return "prefetch" in purposes or "preview" in purposes or headers.get("service-worker", "").lower() == "script"


def wants_json(accept: str) -> bool:
    """Whether `Accept` names JSON, and likes no form of text better.  A wildcard does not name it."""
    ranges = _qualities(accept)
    json = max((ranges.get(name, 0.0) for name in _JSON), default=0.0)
    return json > 0 and json >= max((q for name, q in ranges.items() if name.startswith("text/")), default=0.0)


def wants_html(accept: str) -> bool:
    """Whether `Accept` names HTML, as browsers do.  A wildcard does not name it."""
    return _qualities(accept).get("text/html", 0.0) > 0


def _qualities(accept: str) -> dict[str, float]:
    """The media ranges of an `Accept` header and how much each is wanted, 0 to 1; one that cannot be read is 0."""
    found: dict[str, float] = {}
    for part in accept.lower().split(","):
        name, *parameters = (piece.strip() for piece in part.split(";"))
        weights = [value.strip() for key, _, value in (p.partition("=") for p in parameters) if key.strip() == "q"]
        weight = weights[0] if weights else "1"
        found[name] = max(found.get(name, 0.0), float(weight) if _QUALITY.fullmatch(weight) else 0.0)
    return found
