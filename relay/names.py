"""Tokens and names: what is allowed, and how a name travels through URL, Redis key and header.  Pure."""

import re
import secrets
import string
import unicodedata
from urllib.parse import quote, unquote_to_bytes

from relay.errors import Error, Problem

#: 22 letters and digits are 131 bits.  No `-` or `_`, so that a token is one word to a double click and
#: never looks like a command-line flag.
_ALPHABET = string.ascii_letters + string.digits
_TOKEN_LENGTH = 22
_TOKEN = re.compile(rb"[A-Za-z0-9]{%d}" % _TOKEN_LENGTH)
_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")

#: Bytes of a decoded name: the limit of ext4, APFS, NTFS and so of whoever saves the download.
NAME_MAX = 255


def new_token() -> str:
    """A fresh token of 131 random bits."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(_TOKEN_LENGTH))


def new_id() -> str:
    """A fresh transfer id: 64 random bits, short enough to read aloud."""
    return secrets.token_hex(8)


def parse_token(raw: bytes) -> str:
    """The token in a path segment.  What cannot be a token never reaches a Redis key.

    Raises Problem(UNKNOWN_TOKEN).
    """
    if not _TOKEN.fullmatch(raw):
        raise Problem(Error.UNKNOWN_TOKEN)
    return raw.decode("ascii")


def parse_name(raw: bytes) -> str:
    """The name in a percent-encoded path segment, decoded.  Raises Problem(BAD_NAME) that says why."""
    if _BAD_ESCAPE.search(raw):
        raise Problem(Error.BAD_NAME, why="A % in the name is not followed by two hex digits.")
    data = unquote_to_bytes(raw)
    if len(data) > NAME_MAX:
        raise Problem(Error.BAD_NAME, why=f"The name is longer than {NAME_MAX} bytes.")
    try:
        name = data.decode("utf-8")
    except UnicodeDecodeError:
        raise Problem(Error.BAD_NAME, why="The name is not UTF-8.") from None
    if not name:
        raise Problem(Error.BAD_NAME, why="The name is empty.")
    if name in (".", ".."):
        raise Problem(Error.BAD_NAME, why="The name is . or .. , which means a folder.")
    if "/" in name or "\\" in name:
        raise Problem(Error.BAD_NAME, why="The name contains a slash or backslash.")
    if any(unicodedata.category(character) == "Cc" for character in name):
        raise Problem(Error.BAD_NAME, why="The name contains a control character.")
    return name


def encode_name(name: str) -> str:
    """The one percent-encoded form of a name that stands in Redis keys and logs: only RFC 3986's unreserved
    characters are left bare, so that it needs no quoting in a shell and no colon can be mistaken for ours."""
    return quote(name, safe="")


def content_disposition(name: str) -> str:
    """`attachment` with the exact name in `filename*` (RFC 8187) and an ASCII stand-in in `filename`.

    In the stand-in whatever RFC 6266 appendix D warns of (quotes, backslash, %) becomes `_` as well.
    """
    plain = "".join(c if " " <= c <= "~" and c not in '"\\%;' else "_" for c in name)
    # RFC 8187's attr-char leaves fewer characters bare than quote() does, but all that quote() leaves are in it.
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"
