"""The SHA-256 of a whole file, as the header `Repr-Digest` carries it. Source: RFC 9530. Pure.

In our own hands a digest is 64 hexadecimal digits, as `sha256sum` prints it, or empty if there is none.
"""

import base64
import re

from relay.errors import Error, Problem

REPR_DIGEST = "repr-digest"
#: One member of a structured dictionary (RFC 9651 section 3.2): the name of an algorithm, and its value.
_MEMBER = re.compile(r"\s*([^=;\s]+)\s*(?:=(.*))?")
#: 32 bytes as a structured byte sequence, with parameters, which say nothing here.
_SHA256 = re.compile(r":([A-Za-z0-9+/]{43}=):\s*(?:;.*)?")


def parse_digest(field: str) -> str:
    """Return the SHA-256 in a `Repr-Digest`, empty if it has none. Raise Problem(BAD_DIGEST) if that is malformed.

    Other algorithms are ignored, as the RFC wants it.
    """
    found = ""
    for member in field.split(","):
        match = _MEMBER.fullmatch(member)
        if match is None or match[1].lower() != "sha-256":
            continue
        value = _SHA256.fullmatch(match[2] or "")
        if value is None:
            raise Problem(Error.BAD_DIGEST)
        found = base64.b64decode(value[1]).hex()
    return found


def digest_header(sha256: str) -> dict[str, str]:
    """Return the header that carries a SHA-256; none if that is empty."""
    if not sha256:
        return {}
    return {REPR_DIGEST: f"sha-256=:{base64.b64encode(bytes.fromhex(sha256)).decode()}:"}
