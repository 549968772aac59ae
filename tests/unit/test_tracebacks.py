"""What a test shows of a log that has a traceback in it."""

import pytest

from tests.support.cluster import assert_no_traceback


def test_the_lines_around_the_first_traceback_are_shown() -> None:
    noise = [f"line {number}" for number in range(500)]
    first = ["ERROR first", "Traceback (most recent call last):", "  here"]
    log = "\n".join([*noise, *first, *noise, "Traceback", *noise])
    with pytest.raises(AssertionError) as failure:
        assert_no_traceback(log)
    shown = str(failure.value).splitlines()
    assert shown[0].startswith("2 tracebacks")
    assert shown[1:8] == [*noise[-4:], *first]
    assert len(shown) < 60


def test_a_log_without_a_traceback_passes() -> None:
    assert_no_traceback("line\n" * 3)
