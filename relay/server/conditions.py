"""Conditional and partial requests, for a resource that has neither an ETag nor a date (RFC 9110 sections 13 and 14).

Pure: nothing is imported from relay.
"""

import re
from typing import NamedTuple

#: Longer numbers are ignored as malformed: Python refuses to convert very long ones.
_SPEC = re.compile(r"([0-9]{0,100})-([0-9]{0,100})")


class Range(NamedTuple):
    """The range of bytes that a request asks for."""

    #: Offset of the first byte; None if it asks for the last `last` bytes.
    first: int | None
    #: Offset of the last byte; None if it asks for all bytes from `first`.
    last: int | None

    def is_part(self, length: int | None) -> bool:
        """Return whether it may be less than all of `length` bytes (None: unknown)."""
        if self.first == 0 and self.last is None:
            return False
        if self.first or self.last is None or length is None:
            return True
        return self.last < (length if self.first is None else length - 1)


def asked_range(value: str, *, has_if_range: bool) -> Range | None:
    """Return the range in a GET's `Range`, or None if that is to be ignored, so that everything is sent.

    Section 14.2 lets a server ignore any range: here these are other units, malformed ranges, and several at once.
    A range with an `If-Range` is ignored as well: no validator can match if there is none (sections 13.1.5, 13.2.2).
    """
    unit, equals, ranges = value.partition("=")
    if has_if_range or not equals or unit.strip().lower() != "bytes":
        return None
    specs = [spec.strip() for spec in ranges.split(",") if spec.strip()]  # section 5.6.1.2: lists may have empty parts
    match = _SPEC.fullmatch(specs[0]) if len(specs) == 1 else None
    if match is None:
        return None
    first, last = (int(number) if number else None for number in match.groups())
    if (first is None and last is None) or (first is not None and last is not None and last < first):
        return None
    return Range(first, last)


def failed_condition(*, if_match: str | None, if_none_match: str | None) -> str | None:
    """Return the header whose condition does not hold if there is an upload, or None if all hold.

    Without an ETag, `If-Match` holds only for `*` (section 13.1.1), and `If-None-Match` for all but `*` (13.1.2).
    `If-Modified-Since` and `If-Unmodified-Since` must be ignored without a date (13.1.3, 13.1.4).
    """
    if if_match is not None and if_match.strip() != "*":
        return "If-Match"
    if if_none_match is not None and if_none_match.strip() == "*":
        return "If-None-Match"
    return None
