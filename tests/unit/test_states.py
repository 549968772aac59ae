"""The table of moves, and the copies of it and of the table of keys in relay/README.md."""

from itertools import product

import pytest

from relay.states import MOVES, Answer, Event, State, diagram
from relay.store import keys
from tests.support.pages import CODE


def test_every_event_has_a_move_in_every_state() -> None:
    assert set(MOVES) == set(product(State, Event))


def test_every_answer_is_given() -> None:
    assert {move.answer for move in MOVES.values()} == set(Answer)


@pytest.mark.parametrize("event", [Event.CLOSE])
def test_the_end_frees_the_name_from_every_state(event: Event) -> None:
    assert all(MOVES[state, event].state is State.FREE for state in State)


def test_the_page_has_the_diagram() -> None:
    assert diagram() in CODE.read_text()


def test_the_page_has_the_table_of_keys() -> None:
    assert keys.table() in CODE.read_text()
