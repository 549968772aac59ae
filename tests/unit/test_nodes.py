"""Who is dead, and who is not to be called so."""

import pytest

from relay.nodes import dead


@pytest.mark.parametrize(
    ("ages", "gap", "gone"),
    [
        ({"a": 0.0, "b": 2.0}, 2.0, set()),
        ({"a": 0.0, "b": 6.0}, 2.0, set()),
        ({"a": 0.0, "b": 6.1}, 2.0, {"b"}),
        ({"a": 0.0, "b": 60.0}, 4.0, {"b"}),
        ({"a": 0.0, "b": 60.0}, 4.1, set()),  # we were away ourselves: perhaps Redis was
        ({"a": 0.0, "b": 60.0}, float("inf"), set()),  # our first beat
    ],
)
def test_dead(ages: dict[str, float], gap: float, gone: set[str]) -> None:
    assert dead(ages, death=6.0, gap=gap, heartbeat=2.0) == gone
