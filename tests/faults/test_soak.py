"""A short soak; `python -m tests.faults.soak --seconds 600` is a long one."""

import os
import random

import pytest

from tests.faults.soak import soak
from tests.support.redis import servers

#: Seconds of it.
SECONDS = float(os.environ.get("RELAY_TEST_SOAK", "15"))


# A connection of our own clients that is given up while it is being made is left to the garbage collector by asyncio.
@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning", "ignore:unclosed <socket:ResourceWarning"
)
def test_soak() -> None:
    if not servers():
        pytest.skip("no redis-server on PATH: random transfers with random faults were not tested")
    assert not soak(seconds=SECONDS, seed=random.randrange(2**32))
