"""Wait for a condition instead of sleeping."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(condition: Callable[[], T], what: str, timeout: float = 20.0) -> T:
    """Call the condition until it returns a true value, and return that value.

    Fail after `timeout` seconds with a message that names `what` was waited for.
    """
    deadline = time.monotonic() + timeout
    while not (answer := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout} s for {what}; last: {answer!r}")
        time.sleep(0.01)
    return answer
