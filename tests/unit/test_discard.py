"""What clients send after their last response: bounded in time, in number, and in bytes per second."""

import asyncio

import pytest

from relay.server import discard
from relay.server.discard import Discard, Discards


class Line:
    """A transport that keeps what is asked of it."""

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


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a second be 10 ms."""
    for name in ("_LONGEST", "_LONGEST_AT_SHUTDOWN", "_SILENCE", "_LOOK"):
        monkeypatch.setattr(discard, name, getattr(discard, name) / 100)


async def send(one: Discard, line: Line, seconds: float) -> float:
    """Send something every 10 ms, until it is over or for these seconds. Return how long that took."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    while loop.time() < begun + seconds and not line.is_closing():
        one.note_received(1)
        await asyncio.sleep(0.01)
    return loop.time() - begun


async def test_a_client_that_goes_on_sending_is_cut_off_in_the_end() -> None:
    line = Line()
    assert await send(Discard(line, Discards()), line, 1) >= 0.28
    assert line.calls == ["abort"]


async def test_a_client_that_is_silent_is_closed_and_aborted_if_that_does_not_help() -> None:
    line = Line()
    one = Discard(line, Discards())
    await asyncio.sleep(0.03)
    one.note_received(1)
    await asyncio.sleep(0.04)
    assert line.calls == []
    await asyncio.sleep(0.04)
    assert line.calls == ["close"]
    await asyncio.sleep(0.3)
    assert line.calls[:2] == ["close", "abort"]
    one.end()


async def test_a_node_that_shuts_down_does_not_wait_for_long() -> None:
    line = Line()
    one = Discard(line, Discards())
    one.hurry()
    assert await send(one, line, 1) < 0.2
    assert line.calls == ["abort"]


async def test_a_discard_may_have_a_maximum_of_bytes() -> None:
    line = Line()
    one = Discard(line, Discards(), most=10)
    one.note_received(10)
    assert line.calls == []
    one.note_received(1)
    assert line.calls == ["abort"]
    one.end()


async def test_a_client_that_never_sent_a_request_gets_less_time() -> None:
    line = Line()
    assert await send(Discard(line, Discards(), most=1000), line, 1) < 0.2
    assert line.calls == ["abort"]


async def test_one_that_has_ended_does_nothing_more() -> None:
    line, all_discards = Line(), Discards()
    one = Discard(line, all_discards)
    assert all_discards.admit(one)
    one.end()
    assert len(all_discards) == 0
    await asyncio.sleep(0.4)
    assert line.calls == []


async def test_the_number_of_clients_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discard, "_CLIENTS", 2)
    all_discards = Discards()
    one, two, three = (Discard(Line(), all_discards) for _ in range(3))
    assert [all_discards.admit(each) for each in (one, two, three)] == [True, True, False]
    one.end()
    assert all_discards.admit(three)
    assert one.room() is two.room()  # no memory of its own
    for each in (two, three):
        each.end()


async def test_all_clients_together_have_a_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that send too fast are not read for a while."""
    monkeypatch.setattr(discard, "_RATE", 2000)
    all_discards, first, second = Discards(), Line(), Line()
    one, two = Discard(first, all_discards), Discard(second, all_discards)
    one.note_received(20)
    assert first.calls == []
    two.note_received(40)
    assert second.calls == ["pause"]
    await asyncio.sleep(0.01)
    assert second.calls == ["pause"]
    await asyncio.sleep(0.03)
    assert second.calls == ["pause", "resume"]
    for each in (one, two):
        each.end()
