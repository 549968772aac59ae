"""What the terminal client shows beside its bar, and how it takes the rate."""

import pytest

from relay.client.bar import Pace, facts

MB = 1_000_000


def pace_of(*samples: tuple[float, int]) -> Pace:
    pace = Pace()
    for now, done in samples:
        pace.sample(now, done)
    return pace


@pytest.mark.parametrize(
    ("samples", "rate"),
    [
        ([], 0),
        ([(0, 0)], 0),
        ([(0, 0), (1, 10)], 10),
        ([(0, 0), (1, 10), (1.5, 10)], 10),  # nothing has moved
        ([(0, 0), (1, 100), (2, 110), (6.5, 119)], 0),  # a pause: what was before does not count
        ([(0, 0), (1, 100), (2, 110), (6.5, 119), (7.5, 139)], 20),
        ([(0, 0), (1.5, 90), (3, 100), (4.5, 110), (6.5, 120)], 6),  # the last five seconds
        ([(0, 50), (1, 10), (2, 13)], 3),  # the receiver began again
    ],
)
def test_the_rate_is_that_of_late(samples: list[tuple[float, int]], rate: float) -> None:
    assert pace_of(*samples).rate == rate


def test_silence_is_passed_over_at_first() -> None:
    pace = pace_of((0, 0), (10, 5))
    assert [pace.silence(now) for now in (10, 13, 14)] == [0, 0, 4]


@pytest.mark.parametrize(
    ("done", "total", "rate", "note", "width", "shown"),
    [
        (49 * MB, 800 * MB, 17.3 * MB, "", 80, "  6 %  49.0/800.0 MB  17.3 MB/s  0:43"),
        (49 * MB, 800 * MB, 17.3 * MB, "", 40, "  6 %  17.3 MB/s  0:43"),
        (49 * MB, 800 * MB, 17.3 * MB, "", 20, "  6 %"),
        (49 * MB, 800 * MB, 17.3 * MB, "reconnecting (3)", 80, "  6 %  49.0/800.0 MB  reconnecting (3)"),
        (49 * MB, 800 * MB, 17.3 * MB, "reconnecting (3)", 40, "  6 %  reconnecting (3)"),
        (49 * MB, None, 17.3 * MB, "", 40, "49.0 MB  17.3 MB/s"),
        (MB, 8000 * MB, MB, "", 80, "  0 %  0.0/8.0 GB  1.0 MB/s  2:13:19"),
        (3, 7, 0, "", 80, " 42 %  3/7 B"),
        (0, 0, 0, "", 80, "100 %  0/0 B"),
    ],
)
def test_what_is_shown_fits(done: int, total: int | None, rate: float, note: str, width: int, shown: str) -> None:
    assert facts(done, total, rate, note, width) == shown
