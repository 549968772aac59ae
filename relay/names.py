"""Names and addresses: what is allowed, and how a name is written in URLs, Redis keys and headers. Pure."""

import os
import re
import unicodedata
from typing import NamedTuple, Self
from urllib.parse import quote, unquote, unquote_to_bytes

from relay.access import SECRET_LENGTH, digest_of, random_word
from relay.errors import Error, Problem

_ID_LENGTH = 16
_UPLOAD = re.compile(rb"[0-9a-f]{%d}[A-Za-z0-9]{%d}" % (_ID_LENGTH, SECRET_LENGTH))
_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")

#: Maximum length of a decoded name, in bytes: the limit of ext4, APFS and NTFS, on which the download is saved.
NAME_MAX = 255
#: Maximum growth of a name in NFD over the same in NFC: Hangul syllables of 3 bytes become three letters of 3 bytes.
_NFD_GROWTH = 3
#: Unicode's category Cc, which never grows.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
#: Unicode's controls of text direction (embeddings, overrides, isolates) display `a<U+202E>fdp.exe` as `aexe.pdf`.
_BIDI = re.compile("[\u202a-\u202e\u2066-\u2069]")

#: RFC 3986's unreserved characters, of which most names are made.
_UNRESERVED = re.compile("[A-Za-z0-9._~-]*")
#: What becomes `_` in the ASCII substitute of a file name.
_NOT_PLAIN = re.compile(r'[^ -~]|["\\%;]')


def new_id() -> str:
    """Return a new transfer id: 64 random bits, short enough to read aloud."""
    return os.urandom(_ID_LENGTH // 2).hex()


class UploadAddress(NamedTuple):
    """The last segment of a resumable upload's address: its transfer's id, and a secret of its uploader."""

    id: str
    secret: str

    @classmethod
    def new(cls, transfer_id: str) -> Self:
        return cls(transfer_id, random_word(SECRET_LENGTH))

    @staticmethod
    def fits(raw: bytes) -> bool:
        """Return whether a path segment can be one."""
        return _UPLOAD.fullmatch(raw) is not None

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Return the address in a path segment. Raise Problem(UNKNOWN_UPLOAD) if it cannot be one."""
        if not cls.fits(raw):
            raise Problem(Error.UNKNOWN_UPLOAD)
        text = raw.decode("ascii")
        return cls(text[:_ID_LENGTH], text[_ID_LENGTH:])

    def __str__(self) -> str:
        return self.id + self.secret

    def __repr__(self) -> str:
        return f"<UploadAddress {self.id}>"

    @property
    def digest(self) -> str:
        """What Redis has of the secret."""
        return digest_of(self.secret)


def parse_name(raw: bytes) -> str:
    """Return the decoded name in a percent-encoded path segment, in Unicode's form NFC.

    Raise Problem(BAD_NAME) that says why it is bad. macOS sends names in NFD (an e and a combining accent), most other
    systems in NFC (one é). Both are the same name to a reader, so both must find the same upload.
    """
    if b"%" in raw:
        if _BAD_ESCAPE.search(raw):
            raise Problem(Error.BAD_NAME, why="A % in the name is not followed by two hex digits.")
        raw = unquote_to_bytes(raw)
    try:
        return check_name(raw.decode("utf-8"))
    except UnicodeDecodeError:
        raise Problem(Error.BAD_NAME, why="The name is not UTF-8.") from None


def check_name(name: str) -> str:
    """Return a decoded name in NFC. Raise Problem(BAD_NAME) that says why it is bad."""
    # Python normalizes long runs of combining characters in quadratic time, so the length is bounded before, too.
    if len(name) <= _NFD_GROWTH * NAME_MAX:
        name = nfc(name)
    if len(name.encode()) > NAME_MAX:
        raise Problem(Error.BAD_NAME, why=f"The name is longer than {NAME_MAX} bytes.")
    if not name:
        raise Problem(Error.BAD_NAME, why="The name is empty.")
    if name in (".", ".."):
        raise Problem(Error.BAD_NAME, why="The name is . or .. , which means a folder.")
    if "/" in name or "\\" in name:
        raise Problem(Error.BAD_NAME, why="The name contains a slash or backslash.")
    if _CONTROL.search(name):
        raise Problem(Error.BAD_NAME, why="The name contains a control character.")
    if _BIDI.search(name):
        raise Problem(Error.BAD_NAME, why="The name contains a control of text direction, which can disguise its type.")
    return name


def nfc(name: str) -> str:
    """Return a name in Unicode's form NFC, in which keys have it."""
    return unicodedata.normalize("NFC", name)


def encode_name(name: str) -> str:
    """Return the percent-encoded form of a name for Redis keys and logs.

    Only RFC 3986's unreserved characters remain bare, so that the name needs no quotes in a shell, and none of its
    colons can be mistaken for one that separates the parts of a key.
    """
    return name if _UNRESERVED.fullmatch(name) else quote(name, safe="")


def decode_name(written: str) -> str:
    """Return the name whose percent-encoded form this is."""
    return unquote(written)


def content_disposition(name: str) -> str:
    """Return `attachment` with the exact name in `filename*` (RFC 8187) and an ASCII substitute in `filename`.

    In the substitute, characters that RFC 6266 appendix D warns of (quotes, backslash, %) become `_` as well.
    """
    plain = _NOT_PLAIN.sub("_", name)
    # RFC 8187 allows all the characters that remain bare in keys (its attr-char), and a few more.
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{encode_name(name)}"
