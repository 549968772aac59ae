"""A short soak; `python -m tests.faults.soak --seconds 600` is a long one."""

import os
import random

import pytest

from tests.faults.soak import soak
from tests.support.redis import servers

#: Seconds of it.
SECONDS = float(os.environ.get("RELAY_TEST_SOAK", "15"))


def test_soak() -> None:
    if not servers():
        pytest.skip("no redis-server on PATH: random transfers with random faults were not tested")
    assert not soak(seconds=SECONDS, seed=random.randrange(2**32))
