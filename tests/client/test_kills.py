"""Kill the commands in a few rounds. For 100, set RELAY_TEST_FULL or run `python -m tests.client.kills`."""

import os
import random

from tests.client.kills import prove
from tests.support.redis import RedisServer


def test_a_killed_command_leaves_nothing_wrong(redis_server: RedisServer) -> None:
    times = 100 if os.environ.get("RELAY_TEST_FULL") else 3
    assert not prove(times=times, seed=random.randrange(2**32), redis_server=redis_server)
