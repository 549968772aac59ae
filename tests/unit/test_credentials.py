"""Reading Bearer tokens and Basic passwords, well-formed and malformed."""

import base64

import pytest

from relay.credentials import matches, presented


def basic(text: str | bytes) -> str:
    return "Basic " + base64.b64encode(text.encode() if isinstance(text, str) else text).decode()


@pytest.mark.parametrize(
    ("authorization", "secrets"),
    [
        ("Bearer s3cret", ["s3cret"]),
        ("bearer  s3cret ", ["s3cret"]),
        (basic("admin:s3cret"), ["s3cret"]),
        (basic(":s3:cret"), ["s3:cret"]),
        (basic("ä:ö"), ["ö"]),
        ("Bearer", [""]),
        ("", []),
        ("s3cret", []),
        ("Digest s3cret", []),
        ("Basic", []),
        ("Basic !!!!", []),
        ("Basic s3cret", []),
        (basic("no colon"), []),
        (basic(b"a:\xff"), []),
    ],
)
def test_presented(authorization: str, secrets: list[str]) -> None:
    assert presented({"authorization": authorization}) == secrets


def test_nothing_is_presented_without_the_header() -> None:
    assert presented({}) == []


@pytest.mark.parametrize(
    ("guesses", "secrets", "expected"),
    [
        (["a"], ["a"], True),
        (["a"], ["b", "a"], True),
        (["ä"], ["ä"], True),
        (["a"], ["b"], False),
        (["a"], ["ab"], False),
        ([], ["a"], False),
        (["a"], [], False),
        ([""], [""], False),
    ],
)
def test_matches(guesses: list[str], secrets: list[str], expected: bool) -> None:
    assert matches(guesses, secrets) is expected
