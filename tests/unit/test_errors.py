"""The table of errors: one line per error, and an error for every outcome but `complete`."""

import pytest

from relay.errors import Error, Problem, problem_for_downloader, problem_for_uploader
from relay.states import Outcome

DETAILS = {
    "field": "Upload-Offset",
    "values": "an integer",
    "why": "w",
    "most": 1,
    "does": "send",
    "header": "h",
    "allow": "GET",
    "seconds": 1.0,
    "sent": 1,
    "what": "tokens",
    "offset": 1,
}


@pytest.mark.parametrize("error", list(Error))
def test_every_error_is_one_complete_line(error: Error) -> None:
    problem = Problem(error, **DETAILS)
    assert 400 <= problem.status < 600
    assert "\n" not in problem.line
    assert "{" not in problem.line
    assert problem.line.endswith((".", "w"))


@pytest.mark.parametrize("error", [error for error in Error if error.value.status == 503])
def test_every_503_says_when_to_try_again(error: Error) -> None:
    assert error.value.retry_after


@pytest.mark.parametrize("outcome", [outcome for outcome in Outcome.of_transfers() if outcome is not Outcome.COMPLETE])
def test_every_outcome_but_complete_is_an_error_to_both_sides(outcome: Outcome) -> None:
    assert problem_for_uploader(outcome, sent=1, seconds=1, most=1).status >= 400
    assert problem_for_downloader(outcome, seconds=1).status >= 400


def test_complete_is_no_error() -> None:
    with pytest.raises(KeyError):
        problem_for_uploader(Outcome.COMPLETE, sent=1, seconds=1, most=1)
