"""Deadlines by the clock of Redis."""

from relay.store.clock import Clock


def test_an_unknown_clock_gives_a_deadline_that_is_over() -> None:
    assert Clock().deadline("a", 1e9) == 0


def test_a_deadline_is_early_by_the_time_of_the_reply_and_never_late() -> None:
    clock = Clock()
    # Redis showed 1,000,000 ms when it replied; the reply arrived 5 ms later, when our clock showed 50 s.
    clock.learn("a", 1_000_000, now=50.0)
    when_we_give_up, true_time = 51.5, 1_000_000 + 5 + 1500
    assert clock.deadline("a", when_we_give_up) == true_time - 5


def test_each_server_has_a_clock_of_its_own_and_the_last_reply_counts() -> None:
    clock = Clock()
    clock.learn("a", 1_000_000, now=50.0)
    clock.learn("b", 9_000_000, now=50.0)
    clock.learn("a", 500_000, now=51.0)  # set back, or another machine after a failover
    assert clock.deadline("a", 52.0) == 501_000
    assert clock.deadline("b", 52.0) == 9_002_000
