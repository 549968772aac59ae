"""Run the proof with 100 transfers. For 1,000, set RELAY_TEST_FULL or run `python -m tests.resume.proof`."""

import os
import random

from tests.resume.proof import Pace, prove
from tests.support.redis import newest


def test_every_transfer_arrives_whole() -> None:
    newest("transfers under failures of everything were not tested")
    is_full = bool(os.environ.get("RELAY_TEST_FULL"))
    pace = Pace() if is_full else Pace(kill=5, cut=0.5, redis=5)
    transfers, seed = 1000 if is_full else 100, random.randrange(2**32)
    assert not prove(transfers=transfers, seed=seed, pace=pace, is_patient=is_full)
