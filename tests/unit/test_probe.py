"""The probe of a silent client: its table of moves, and what it does to the connection."""

import pytest

from relay.server.probe import MOVES, Action, Event, Facts, Probe, ReadAhead, State, find

MIB = 1024 * 1024


class Line:
    """A connection that is not read, of a client that understands interim responses."""

    def __init__(self) -> None:
        self.is_lost = self.is_read = self.is_acknowledged = False
        self.takes_interim = True
        self.untaken = 0
        self.calls: list[str] = []

    def has_acknowledged(self) -> bool:
        return self.is_acknowledged

    def send_interim(self) -> None:
        self.calls.append("100")

    def resume_reading(self) -> None:
        self.calls.append("read")


LOOKS = {
    ("asked", "is read"): ("quiet", "vouch"),
    ("asked", "can send"): ("interim sent", "send interim"),
    ("asked", "cannot send"): ("reading ahead", "read ahead"),
    ("asked", "nothing"): ("asked", "none"),
    ("asked", "late"): ("quiet", "vouch"),
    ("interim sent", "is read"): ("quiet", "vouch"),
    ("interim sent", "acknowledged"): ("quiet", "vouch"),
    ("interim sent", "nothing"): ("interim sent", "none"),
    ("interim sent", "late"): ("quiet", "vouch"),
    ("reading ahead", "nothing"): ("reading ahead", "none"),
    ("reading ahead", "late"): ("quiet", "vouch"),
}
LEGAL = {
    **LOOKS,
    **{(state.value, "stop"): ("quiet", "none") for state in State},
    **{(state.value, "ask"): (state.value if state is not State.QUIET else "asked", "none") for state in State},
}


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("event", Event)
def test_every_pair_of_state_and_event_is_a_move_or_a_bug(state: State, event: Event) -> None:
    move = MOVES.get((state, event))
    found = None if move is None else (move[0].value, move[1].value)
    assert found == LEGAL.get((state.value, event.value))


def test_whatever_a_look_finds_there_is_a_move_for_it() -> None:
    facts = [Facts(*(bool(bits >> n & 1) for n in range(5))) for bits in range(32)]
    for state in set(State) - {State.QUIET}:
        for each in facts:
            assert (state, find(state, each)) in MOVES, (state, each)


def test_nobody_vouches_for_a_client_that_is_lost_or_does_nothing_to_it() -> None:
    for state in set(State) - {State.QUIET}:
        _, action = MOVES[state, find(state, Facts(True, True, True, True, is_late=False))]
        assert action is Action.NONE


def test_a_client_that_is_read_is_vouched_for_at_once() -> None:
    line = Line()
    line.is_read = True
    probe = Probe(line, ReadAhead())
    probe.ask(100.0)
    assert probe.look(100.0)
    assert (probe.is_asked, line.calls) == (False, [])


def test_a_client_is_vouched_for_when_it_has_acknowledged_an_interim_response() -> None:
    line = Line()
    probe = Probe(line, ReadAhead())
    probe.ask(100.0)
    assert not probe.look(100.0)
    assert not probe.look(100.3)
    assert line.calls == ["100"], "only one"
    line.is_acknowledged = True
    assert probe.look(100.6)
    assert not probe.is_asked


def test_what_was_acknowledged_before_says_nothing() -> None:
    line = Line()
    line.is_acknowledged = True
    probe = Probe(line, ReadAhead())
    probe.ask(100.0)
    assert not probe.look(100.0)


@pytest.mark.parametrize("takes_interim", [True, False])
def test_a_client_of_which_nothing_is_learnt_is_vouched_for_after_a_while(takes_interim: bool) -> None:
    line = Line()
    line.takes_interim = takes_interim
    probe = Probe(line, ReadAhead())
    probe.ask(100.0)
    assert not probe.look(101.4)
    probe.ask(101.4)  # who asks again does not restart it
    assert probe.look(101.5)


def test_a_body_is_read_ahead_piece_by_piece_up_to_a_limit() -> None:
    line, memory = Line(), ReadAhead()
    line.takes_interim = False
    probe = Probe(line, memory)
    probe.ask(100.0)
    assert not probe.look(100.0)
    assert line.calls == ["read"]
    line.is_read, line.untaken = True, 64 * MIB - 1
    assert not probe.look(100.3), "it is read only because of the probe"
    probe.read_further()
    assert line.calls == ["read"] * 2
    line.untaken = 64 * MIB
    probe.read_further()
    assert line.calls == ["read"] * 2


def test_all_together_read_ahead_up_to_a_limit() -> None:
    line, memory = Line(), ReadAhead()
    line.takes_interim = False
    probe = Probe(line, memory)
    others = Probe(line, None)
    memory.sizes[others] = lambda: 256 * MIB
    probe.ask(100.0)
    assert not probe.look(100.0)
    assert line.calls == []
    del others
    probe.read_further()
    assert line.calls == ["read"]
    assert memory.sizes
    probe.forget()
    assert not memory.sizes
    assert not probe.is_asked


def test_what_nobody_probes_is_not_read_ahead() -> None:
    line = Line()
    probe = Probe(line, ReadAhead())
    probe.read_further()
    probe.ask(100.0)
    probe.look(100.0)
    probe.read_further()
    assert line.calls == ["100"]
    probe.stop()
    probe.read_further()
    assert line.calls == ["100"]


def test_a_probe_is_looked_at_often_only_while_somebody_asks() -> None:
    probe = Probe(Line(), None)
    assert probe.interval(2.0) == 2.0
    probe.ask(100.0)
    intervals = [probe.interval(2.0)]
    for _ in range(8):
        probe.look(100.0)
        intervals.append(probe.interval(2.0))
    assert intervals[:3] == pytest.approx([0.005, 0.01, 0.02])  # most clients answer within a round trip
    assert intervals[-1] == pytest.approx(0.3)
    assert probe.interval(0.1) == 0.1


def test_a_client_that_left_after_the_interim_response_is_not_asked_what_it_acknowledged() -> None:
    """Its socket is closed by then."""
    line = Line()
    probe = Probe(line, None)
    probe.ask(100.0)
    probe.look(100.0)
    line.is_lost = True
    line.has_acknowledged = lambda: pytest.fail("its socket is closed")  # type: ignore[method-assign]
    assert not probe.look(100.1)
