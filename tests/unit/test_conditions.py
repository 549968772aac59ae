"""Conditional and partial requests to what has no validators: RFC 9110 sections 13 and 14, as tables."""

import pytest

from relay.server.conditions import asked_range, failed_condition

ALL, PART = False, True


@pytest.mark.parametrize(
    ("value", "length", "part"),
    [
        # Section 14.1.2: byte ranges. A range that covers everything is served, if that is certain.
        ("bytes=0-", 10, ALL),
        ("bytes=0-", None, ALL),
        ("bytes=0-", 0, ALL),
        ("bytes=0-9", 10, ALL),
        ("bytes=0-99999999999999999999", 10, ALL),
        ("bytes=-10", 10, ALL),
        ("bytes=-11", 10, ALL),
        ("bytes=0-8", 10, PART),
        ("bytes=0-9", None, PART),
        ("bytes=-9", 10, PART),
        ("bytes=-10", None, PART),
        ("bytes=-0", 10, PART),
        ("bytes=2-", 10, PART),
        ("bytes=2-", None, PART),
        ("bytes=2-9", 10, PART),
        ("bytes=10-", 10, PART),
        ("BYTES=2-", 10, PART),
        ("bytes= 2-", 10, PART),
        # Section 5.6.1.2: a list may have empty parts.
        ("bytes=,2-,", 10, PART),
        # Section 14.2: what is unknown, malformed or several ranges is ignored.
        ("", 10, ALL),
        ("bytes", 10, ALL),
        ("bytes=", 10, ALL),
        ("bytes=-", 10, ALL),
        ("bytes=x-", 10, ALL),
        ("bytes=2", 10, ALL),
        ("bytes=2-1", 10, ALL),
        ("bytes=+2-", 10, ALL),
        ("bytes=２-", 10, ALL),
        ("bytes=2 -", 10, ALL),
        ("bytes=" + "9" * 5000 + "-", 10, ALL),
        ("bytes=2-3,5-6", 10, ALL),
        ("bytes=2-3, bytes=5-6", 10, ALL),
        ("items=2-", 10, ALL),
        ("2-", 10, ALL),
    ],
)
def test_ranges(value: str, length: int | None, part: bool) -> None:
    asked = asked_range(value, has_if_range=False)
    assert (asked is not None and asked.is_part(length)) is part


def test_a_range_with_an_if_range_is_ignored() -> None:
    """Section 13.2.2, step 5: no validator matches, so the Range does not count."""
    assert asked_range("bytes=2-", has_if_range=True) is None


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
        ('"x"', "*", "If-Match"),  # section 13.2.2: If-Match comes first
        ("*", "*", "If-None-Match"),
        ("*", '"x"', None),
    ],
)
def test_conditions(if_match: str | None, if_none_match: str | None, failed: str | None) -> None:
    assert failed_condition(if_match=if_match, if_none_match=if_none_match) == failed
