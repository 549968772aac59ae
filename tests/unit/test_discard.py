"""What is thrown away after the last response of a connection: for how long, how much, and from how many clients."""

import heapq
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from relay.server import discard
from relay.server.discard import Discard, Discards


class Line:
    def __init__(self) -> None:
        self.calls: list[str] = []

    def is_closing(self) -> bool:
        return bool({"close", "abort"} & set(self.calls))

    def pause_reading(self) -> None:
        self.calls.append("pause")

    def resume_reading(self) -> None:
        self.calls.append("resume")

    def close(self) -> None:
        self.calls.append("close")

    def abort(self) -> None:
        self.calls.append("abort")


class Timer:
    def __init__(self) -> None:
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


class Clock:
    """An event loop's clock and timers, which the test advances."""

    def __init__(self) -> None:
        self.now = 100.0
        self._timers: list[tuple[float, int, Timer, Callable[[], None]]] = []
        self._count = 0

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        timer, self._count = Timer(), self._count + 1
        heapq.heappush(self._timers, (self.now + delay, self._count, timer, callback))
        return timer

    def advance(self, seconds: float) -> None:
        """Let this time pass, and run the timers that are due within it."""
        end = self.now + seconds
        while self._timers and self._timers[0][0] <= end:
            self.now, _, timer, callback = heapq.heappop(self._timers)
            if not timer.is_cancelled:
                callback()
        self.now = end


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(discard, "asyncio", SimpleNamespace(get_running_loop=lambda: clock))
    return clock


def send(clock: Clock, one: Discard, line: Line, seconds: float) -> float:
    """Receive a byte every second until the line is closing, for at most these seconds. Return how long that took."""
    begun = clock.now
    while clock.now < begun + seconds and not line.is_closing():
        one.note_received(1)
        clock.advance(1)
    return clock.now - begun


def test_a_client_that_goes_on_sending_is_cut_off_in_the_end(clock: Clock) -> None:
    line = Line()
    assert send(clock, Discard(line, Discards()), line, 100) == pytest.approx(30, abs=1)
    assert line.calls == ["abort"]


def test_a_client_that_is_silent_is_closed_and_aborted_if_that_does_not_help(clock: Clock) -> None:
    line = Line()
    one = Discard(line, Discards())
    clock.advance(3)
    one.note_received(1)
    clock.advance(4)
    assert line.calls == []
    clock.advance(2)
    assert line.calls == ["close"]
    clock.advance(22)
    assert line.calls[:2] == ["close", "abort"]


def test_a_node_that_shuts_down_does_not_wait_for_long(clock: Clock) -> None:
    line = Line()
    one = Discard(line, Discards())
    one.hurry()
    assert send(clock, one, line, 100) <= 3
    assert line.calls == ["abort"]


def test_a_discard_may_have_a_maximum_of_bytes(clock: Clock) -> None:
    line = Line()
    one = Discard(line, Discards(), most=10)
    one.note_received(10)
    assert line.calls == []
    one.note_received(1)
    assert line.calls == ["abort"]


def test_a_client_that_never_sent_a_request_gets_less_time(clock: Clock) -> None:
    line = Line()
    assert send(clock, Discard(line, Discards(), most=1000), line, 100) <= 6
    assert line.calls == ["abort"]


def test_one_that_has_ended_does_nothing_more(clock: Clock) -> None:
    line, all_discards = Line(), Discards()
    one = Discard(line, all_discards)
    assert all_discards.admit(one)
    one.end()
    assert len(all_discards) == 0
    clock.advance(60)
    assert line.calls == []


@pytest.mark.usefixtures("clock")
def test_the_number_of_clients_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discard, "_CLIENTS", 2)
    all_discards = Discards()
    one, two, three = (Discard(Line(), all_discards) for _ in range(3))
    assert [all_discards.admit(each) for each in (one, two, three)] == [True, True, False]
    one.end()
    assert all_discards.admit(three)
    assert one.room() is two.room()  # no memory of its own


def test_all_clients_together_have_a_rate(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that send too fast are not read for a while."""
    monkeypatch.setattr(discard, "_RATE", 2000)
    all_discards, first, second = Discards(), Line(), Line()
    one, two = Discard(first, all_discards), Discard(second, all_discards)
    one.note_received(20)
    assert first.calls == []
    two.note_received(40)
    assert second.calls == ["pause"]
    clock.advance(0.029)
    assert second.calls == ["pause"]
    clock.advance(0.002)
    assert second.calls == ["pause", "resume"]
