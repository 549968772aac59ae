"""Run a short soak. For a long one, run `python -m tests.faults.soak --seconds 600`."""

import os
import random

import pytest

from tests.faults.soak import soak
from tests.support.redis import servers

#: Duration of the soak, in seconds.
SECONDS = float(os.environ.get("RELAY_TEST_SOAK", "15"))


# If one of our clients is cancelled while it connects, asyncio leaves its socket to the garbage collector, which warns.
@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning", "ignore:unclosed <socket:ResourceWarning"
)
def test_soak() -> None:
    if not servers():
        pytest.skip("no redis-server on PATH: random transfers with random faults were not tested")
    assert not soak(seconds=SECONDS, seed=random.randrange(2**32))
