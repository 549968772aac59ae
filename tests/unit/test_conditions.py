"""Conditional and partial requests: RFC 9110 sections 13 and 14, as tables."""

import pytest

from relay.errors import Error, Problem
from relay.server.conditions import asked_range, failed_condition


@pytest.mark.parametrize(
    ("value", "length", "start"),
    [
        # Section 14.1.2: byte ranges. A range that reaches the end is served, if that is certain.
        ("bytes=0-", 10, 0),
        ("bytes=0-", None, 0),
        ("bytes=0-", 0, 0),
        ("bytes=0-9", 10, 0),
        ("bytes=0-99999999999999999999", 10, 0),
        ("bytes=-10", 10, 0),
        ("bytes=-11", 10, 0),
        ("bytes=2-", 10, 2),
        ("bytes=2-", None, 2),
        ("bytes=2-9", 10, 2),
        ("bytes=10-", 10, 10),
        ("BYTES=2-", 10, 2),
        ("bytes= 2-", 10, 2),
        ("bytes=9007199254740991-", None, 2**53 - 1),
        ("bytes=0-8", 10, Error.PART),
        ("bytes=2-8", 10, Error.PART),
        ("bytes=0-9", None, Error.PART),
        ("bytes=2-9", None, Error.PART),
        ("bytes=-9", 10, Error.PART),
        ("bytes=-10", None, Error.PART),
        ("bytes=-0", 10, Error.PART),
        ("bytes=11-", 10, Error.OTHER_FILE),
        ("bytes=9007199254740992-", None, Error.OTHER_FILE),
        # Section 5.6.1.2: a list may have empty parts.
        ("bytes=,2-,", 10, 2),
    ],
)
def test_ranges(value: str, length: int | None, start: int | Error) -> None:
    asked = asked_range(value)
    assert asked is not None
    if isinstance(start, Error):
        with pytest.raises(Problem) as raised:
            asked.start(length)
        assert raised.value.error is start
    else:
        assert asked.start(length) == start


@pytest.mark.parametrize(
    "value",
    [
        # Section 14.2: what is unknown, malformed or several ranges is ignored.
        "",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=x-",
        "bytes=2",
        "bytes=2-1",
        "bytes=+2-",
        "bytes=２-",
        "bytes=2 -",
        "bytes=" + "9" * 5000 + "-",
        "bytes=2-3,5-6",
        "bytes=2-3, bytes=5-6",
        "items=2-",
        "2-",
    ],
)
def test_what_is_no_range_is_ignored(value: str) -> None:
    assert asked_range(value) is None


@pytest.mark.parametrize(
    ("if_match", "if_none_match", "failed"),
    [
        (None, None, None),
        ("*", None, None),  # section 13.1.1: something is there
        ('"x"', None, "If-Match"),
        ('"x", "y"', None, "If-Match"),
        ("", None, "If-Match"),
        (None, "*", "If-None-Match"),  # section 13.1.2
        (None, '"x"', None),
        (None, 'W/"x"', None),
        ('"me"', None, None),
        ('"x", "me"', None, None),
        ('W/"me"', None, "If-Match"),  # section 8.8.3.2: a weak ETag is never the same
        (None, '"me"', "If-None-Match"),
        (None, 'W/"me"', "If-None-Match"),
        (None, '"x", "me"', "If-None-Match"),
        ('"x"', "*", "If-Match"),  # section 13.2.2: If-Match comes first
        ("*", "*", "If-None-Match"),
        ("*", '"x"', None),
    ],
)
def test_conditions(if_match: str | None, if_none_match: str | None, failed: str | None) -> None:
    assert failed_condition(etag='"me"', if_match=if_match, if_none_match=if_none_match) == failed
