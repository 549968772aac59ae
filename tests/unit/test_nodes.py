"""Which nodes count as dead, and when a node must not be called dead."""

import pytest

from relay.cluster.membership import Membership


def roll(first: dict[str, float], *, at: float = 0.0) -> Membership:
    made = Membership("me", death=6.0, heartbeat=2.0)
    assert made.update({"me": 0.0}, at - 2.0) == set()  # the first roll calls nobody dead, so make one first
    made.update({"me": 0.0, **first}, at)
    return made


@pytest.mark.parametrize(
    ("age", "alive"),
    [(0.0, True), (6.0, True), (6.1, False), (60.0, False)],
)
def test_a_node_is_alive_until_its_silence_is_longer_than_death(age: float, alive: bool) -> None:
    assert roll({"b": age}).alive == {"me", *(["b"] if alive else [])}


def test_the_roll_that_finds_a_node_dead_says_so_once() -> None:
    now = roll({"b": 2.0, "c": 0.0})
    assert now.update({"me": 0.0, "b": 4.0, "c": 0.0}, 2.0) == set()
    assert now.update({"me": 0.0, "b": 6.1, "c": 0.0}, 4.2) == {"b"}
    assert now.update({"me": 0.0, "b": 8.1, "c": 0.0}, 6.2) == set()
    assert now.alive == {"me", "c"}


def test_a_node_that_redis_has_forgotten_lives_on_for_as_long_as_it_would_have() -> None:
    """Redis was restarted empty, and the other node has not sent its next heartbeat yet."""
    now = roll({"b": 1.0})
    assert now.update({"me": 0.0}, 2.0) == set()
    assert now.update({"me": 0.0}, 4.0) == set()
    assert "b" in now.alive
    assert now.update({"me": 0.0, "b": 0.5}, 5.0) == set()
    assert now.update({"me": 0.0}, 8.0) == set()
    assert now.update({"me": 0.0}, 10.6) == {"b"}


def test_no_node_is_dead_because_redis_was_away() -> None:
    now = roll({"b": 0.0})
    assert now.update({"me": 0.0, "b": 20.0}, 20.0) == set()
    assert "b" in now.alive
    assert now.update({"me": 0.0, "b": 22.0}, 22.0) == set(), "it gets the whole time until death anew"
    for at in (24.0, 26.0):
        now.update({"me": 0.0, "b": at}, at)
    assert now.update({"me": 0.0, "b": 26.1}, 26.1) == {"b"}


def test_the_first_roll_calls_nobody_dead() -> None:
    now = Membership("me", death=6.0, heartbeat=2.0)
    now.update({"me": 0.0, "b": 60.0}, 0.0)
    assert "b" in now.alive


def test_a_node_that_cannot_reach_redis_is_not_steady() -> None:
    now = Membership("me", death=6.0, heartbeat=2.0)
    assert not now.is_steady(0.0)
    now.update({"me": 0.0}, 0.0)
    assert now.is_steady(4.0)
    assert not now.is_steady(4.1)


def test_a_node_that_took_its_leave_is_not_found_dead() -> None:
    now = roll({"b": 0.0, "c": 0.0})
    now.remove("b")
    assert now.alive == {"me", "c"}
    assert now.update({"b": 0.0, "c": 0.0}, 1.0) == set()  # a list that is older than the farewell
    assert now.alive == {"me", "c"}
    assert now.update({"c": 2.0}, 10.0) == set()
