"""The file name in an upload's `Content-Disposition`: read, made safe, and carried to the downloader. Pure.

It travels at the end of the media type, as a parameter, in the field of the transfer that nodes of any version pass
on: a node that does not know of it sends a Content-Type with one parameter more.
"""

import re
from urllib.parse import quote, unquote, unquote_to_bytes

from relay.errors import Problem
from relay.names import check_name

#: Maximum characters of a header that is read: a name of 255 bytes in both forms, percent-encoded, fits in.
_MOST = 2048
#: RFC 6266 section 4.1: a type, and parameters that are tokens or quoted strings.
_TYPE = re.compile(r"\s*[!#$&+.^_`|~0-9A-Za-z-]+\s*")
_PARAMETER = re.compile(r';\s*([!#$&+.^_`|~0-9A-Za-z*-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s";]+))\s*')
#: RFC 8187 section 3.2.1: charset, language and percent-encoded bytes.
_EXTENDED = re.compile(r"(utf-8|iso-8859-1)'[0-9A-Za-z-]*'([^']*)", re.IGNORECASE)
_CARRIED = re.compile(r"; filename\*=UTF-8''([0-9A-Za-z._~%-]+)$")


def file_name(disposition: str) -> str:
    """Return the file name in a `Content-Disposition`, without its folders; "" if it has none that is safe.

    It is safe if it could be the name in a transfer's URL. `filename*` wins over `filename` (RFC 6266 section 4.3).
    """
    if not disposition:  # as of most uploads
        return ""
    parameters = _parameters(disposition)
    given = (_extended(parameters.get("filename*", "")), _plain(parameters.get("filename", "")))
    for name in filter(None, given):
        base = re.split(r"[/\\]", name)[-1]
        try:
            return check_name(base)
        except Problem:
            continue
    return ""


def with_file_name(media_type: str, name: str) -> str:
    """Return a media type that carries a file name; the media type itself if the name is empty."""
    return f"{media_type}; filename*=UTF-8''{quote(name, safe='')}" if name else media_type


def split_file_name(carrier: str) -> tuple[str, str]:
    """Return the media type and the file name in what `with_file_name` returned. The name is checked again."""
    match = _CARRIED.search(carrier)
    if match is None:
        return carrier, ""
    try:
        return carrier[: match.start()], check_name(unquote(match[1], errors="strict"))
    except (Problem, UnicodeDecodeError):
        return carrier, ""


def _parameters(disposition: str) -> dict[str, str]:
    """Return the parameters of a `Content-Disposition` by their names in lower case; none if it is malformed."""
    match = _TYPE.match(disposition[:_MOST])
    found: dict[str, str] = {}
    while match is not None and match.end() < len(disposition):
        match = _PARAMETER.match(disposition[:_MOST], match.end())
        if match is None:
            return {}
        quoted, token = match[2], match[3]
        found.setdefault(match[1].lower(), token if quoted is None else re.sub(r'\\(["\\])', r"\1", quoted))
    return found


def _extended(value: str) -> str:
    """Return the decoded value of a `filename*`; "" if it cannot be decoded."""
    match = _EXTENDED.fullmatch(value)
    try:
        return unquote_to_bytes(match[2]).decode(match[1]) if match else ""
    except UnicodeDecodeError:
        return ""


def _plain(value: str) -> str:
    """Return the value of a `filename`, which most clients send in UTF-8 although RFC 9110 knows ISO-8859-1 only."""
    try:
        return value.encode("latin-1").decode("utf-8")
    except UnicodeDecodeError:
        return value
