"""The header fields of resumable uploads: what a request says in them, and how they are written. Pure.

Source: draft-ietf-httpbis-resumable-upload-11, sections 4 and 5. They are structured fields (RFC 9651), whose integers
have at most 15 digits. The draft wants malformed ones to be ignored. Here they are refused: what is meant for a part of
a file must not be taken for the whole of one.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

from relay.errors import Error, Problem
from relay.settings import Settings

COMPLETE, OFFSET, LENGTH, LIMIT = "upload-complete", "upload-offset", "upload-length", "upload-limit"
VERSION = "upload-draft-interop-version"
#: The interop versions that are spoken here: -09 to -11 of the draft are 8, -12 is 9.
VERSIONS = (8, 9)
#: The media type of a part of a file.
PARTIAL = "application/partial-upload"
#: The largest integer of a structured field.
_LARGEST = 999_999_999_999_999
#: RFC 9651 section 3.1.2, but for strings with blanks: parameters, which say nothing here.
_PARAMETERS = r"(?:; *[a-z*][a-z0-9_.*-]*(?:=[!-+\--:<-~]+)?)*"
_BOOLEAN = re.compile(rf" *\?([01]){_PARAMETERS} *")
_INTEGER = re.compile(rf" *([0-9]{{1,15}}){_PARAMETERS} *")
_IS, _NUMBER = "?1 or ?0", f"an integer from 0 to {_LARGEST}"


class UploadFields(NamedTuple):
    """What a request says of its upload; None is what it does not say."""

    is_last: bool | None
    offset: int | None
    length: int | None
    #: The interop version; -1 if it is malformed.
    version: int | None

    @property
    def is_foreign(self) -> bool:
        """Whether the client speaks a version of the draft that is not spoken here."""
        return self.version is not None and self.version not in VERSIONS

    def part(self) -> tuple[int, bool]:
        """Return the offset and whether the part is the last, both of which a PATCH has to say. Raise Problem."""
        if self.offset is None:
            raise Problem(Error.BAD_UPLOAD_FIELD, field="Upload-Offset", values=_NUMBER)
        if self.is_last is None:
            raise Problem(Error.BAD_UPLOAD_FIELD, field="Upload-Complete", values=_IS)
        return self.offset, self.is_last


#: What a request says without any of the fields.
NONE = UploadFields(is_last=None, offset=None, length=None, version=None)


def parse(fields: Mapping[str, str | None]) -> UploadFields:
    """Return what the fields say, by name; those in several lines are joined. Raise Problem(BAD_UPLOAD_FIELD)."""
    version = fields[VERSION]
    found = None if version is None else _INTEGER.fullmatch(version)
    return UploadFields(
        is_last=_boolean(fields[COMPLETE]),
        offset=_integer(fields[OFFSET], "Upload-Offset"),
        length=_integer(fields[LENGTH], "Upload-Length"),
        version=int(found[1]) if found else None if version is None else -1,
    )


def written(*, offset: int, is_complete: bool) -> dict[str, str]:
    """Return the fields that say how far an upload is."""
    return {OFFSET: str(offset), COMPLETE: "?1" if is_complete else "?0"}


def limits(settings: Settings) -> dict[str, str]:
    """Return the field with the limits of an upload.

    There is no `max-age`: it would be that of an upload which is interrupted, and a client that counted from an early
    response would give up an upload which a long request has kept alive.
    """
    return {LIMIT: f"max-size={settings.max_upload or _LARGEST}"}


def offers(settings: Settings) -> dict[str, str]:
    """Return the fields that answer OPTIONS: resumable uploads are possible."""
    return {"accept-patch": PARTIAL, **limits(settings)}


def _boolean(value: str | None) -> bool | None:
    if value is None:
        return None
    match = _BOOLEAN.fullmatch(value)
    if match is None:
        raise Problem(Error.BAD_UPLOAD_FIELD, field="Upload-Complete", values=_IS)
    return match[1] == "1"


def _integer(value: str | None, field: str) -> int | None:
    if value is None:
        return None
    match = _INTEGER.fullmatch(value)
    if match is None:
        raise Problem(Error.BAD_UPLOAD_FIELD, field=field, values=_NUMBER)
    return int(match[1])
