"""Conditional and partial requests, for a resource that has an ETag and no date (RFC 9110 sections 13 and 14).

Pure.
"""

import re
from typing import NamedTuple

from relay.errors import Error, Problem

#: Longer numbers are ignored as malformed: Python refuses to convert very long ones.
_SPEC = re.compile(r"([0-9]{0,100})-([0-9]{0,100})")


#: The largest byte offset: Lua, in which Redis counts, and JavaScript know no larger integers for certain.
LARGEST = 2**53 - 1


class Range(NamedTuple):
    """The range of bytes that a request asks for."""

    #: Offset of the first byte; None if it asks for the last `last` bytes.
    first: int | None
    #: Offset of the last byte; None if it asks for all bytes from `first`.
    last: int | None

    def start(self, length: int | None) -> int:
        """Return the byte offset from which on it asks for a file of `length` bytes (None: unknown).

        Raise Problem(PART) if it does not reach the end, or Problem(OTHER_FILE) if it begins behind it.
        """
        if length is None:
            reaches_end = self.last is None and self.first is not None
        elif self.first is None:
            reaches_end = (self.last or 0) >= length
        else:
            reaches_end = self.last is None or self.last >= length - 1
        if not reaches_end:
            raise Problem(Error.PART)
        if (self.first or 0) > (LARGEST if length is None else length):
            raise Problem(Error.OTHER_FILE)
        return self.first or 0


def asked_range(value: str) -> Range | None:
    """Return the range in a GET's `Range`, or None if that is to be ignored, so that everything is sent.

    Section 14.2 lets a server ignore any range: here these are other units, malformed ranges, and several at once.
    """
    unit, equals, ranges = value.partition("=")
    if not equals or unit.strip().lower() != "bytes":
        return None
    specs = [spec.strip() for spec in ranges.split(",") if spec.strip()]  # section 5.6.1.2: lists may have empty parts
    match = _SPEC.fullmatch(specs[0]) if len(specs) == 1 else None
    if match is None:
        return None
    first, last = (int(number) if number else None for number in match.groups())
    if (first is None and last is None) or (first is not None and last is not None and last < first):
        return None
    return Range(first, last)


def failed_condition(*, etag: str | None, if_match: str | None, if_none_match: str | None) -> str | None:
    """Return the header whose condition does not hold if there is an upload with this ETag, or None if all hold.

    `If-Match` holds for `*` and for a list that has the ETag (section 13.1.1), `If-None-Match` for everything else
    (13.1.2). Without an ETag only `*` matches. `If-Modified-Since` and `If-Unmodified-Since` must be ignored without a
    date (13.1.3, 13.1.4).
    """
    if if_match is not None and not _matches(if_match, etag):
        return "If-Match"
    if if_none_match is not None and _matches(if_none_match.replace("W/", ""), etag):
        return "If-None-Match"
    return None


def _matches(condition: str, etag: str | None) -> bool:
    """Return whether a list of ETags has this one. A weak one in it never matches: section 8.8.3.2."""
    return condition.strip() == "*" or etag in [each.strip() for each in condition.split(",")]
