"""The table of moves, and the README's copies of what stands in the code."""

from itertools import product
from pathlib import Path

import pytest

from relay.states import MOVES, Answer, Event, State, diagram
from relay.store import keys

README = Path(__file__).parents[2] / "README.md"


def test_every_event_has_a_move_in_every_state() -> None:
    assert set(MOVES) == set(product(State, Event))


def test_every_answer_is_given() -> None:
    assert {move.answer for move in MOVES.values()} == set(Answer)


@pytest.mark.parametrize("event", [Event.CLOSE])
def test_the_end_frees_the_name_from_every_state(event: Event) -> None:
    assert all(MOVES[state, event].state is State.FREE for state in State)


def test_the_readme_has_the_diagram() -> None:
    assert diagram() in README.read_text()


def test_the_readme_has_the_table_of_keys() -> None:
    assert keys.table() in README.read_text()
