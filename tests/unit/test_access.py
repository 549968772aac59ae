"""Tokens of a public id and a secret, and links that a digest signs."""

import hashlib
import hmac
import subprocess

import pytest

from relay.access import Access, Link, Right, Token
from relay.errors import Problem

TOKEN = Token("AbCdEf12", "0123456789abcdefghijAB")


def test_tokens_are_long_enough_and_different() -> None:
    tokens = {Token.new() for _ in range(1000)}
    assert len({token.id for token in tokens}) == len({token.secret for token in tokens}) == 1000
    assert all(Token.parse(str(token).encode()) == token for token in tokens)
    assert min(62 ** len(token.secret) for token in tokens) > 2**128


@pytest.mark.parametrize("raw", [b"", b"short", b"x" * 22, b"x" * 29, b"x" * 31, b"x" * 29 + b"}", b"%41" * 30])
def test_what_cannot_be_a_token_is_unknown(raw: bytes) -> None:
    with pytest.raises(Problem) as caught:
        Token.parse(raw)
    assert caught.value.status == 401


def test_the_proof_does_not_contain_the_secret() -> None:
    assert TOKEN.access == Access("AbCdEf12", hashlib.sha256(TOKEN.secret.encode()).hexdigest()[:32])


@pytest.mark.parametrize("right", Right)
@pytest.mark.parametrize("name", ["holiday.zip", "ünï 😀", "a:b"])
def test_a_link_is_what_the_rule_says(right: Right, name: str) -> None:
    link = Link.make(TOKEN.access, right, name)
    digest = hashlib.sha256(TOKEN.secret.encode()).hexdigest()[:32]
    signature = hmac.new(digest.encode(), f"{right}:{name}".encode(), "sha256").hexdigest()[:32]
    assert str(link) == f"AbCdEf12{right}{signature}"
    assert Link.parse(str(link).encode()) == link
    assert link.is_to(TOKEN.access, name)


def test_openssl_makes_the_same_link() -> None:
    script = """
        DIGEST=$(printf %s "$SECRET" | openssl dgst -sha256 -r | cut -c-32)
        printf %s "r:$NAME" | openssl dgst -sha256 -hmac "$DIGEST" -r | cut -c-32
    """
    environment = {"SECRET": TOKEN.secret, "NAME": "holiday.zip", "PATH": "/usr/bin:/bin"}
    said = subprocess.run(["sh", "-c", script], env=environment, capture_output=True, text=True, check=True).stdout
    assert said.strip() == Link.make(TOKEN.access, Right.RECEIVE, "holiday.zip").signature


def test_a_link_to_something_else_does_not_fit() -> None:
    link = Link.make(TOKEN.access, Right.RECEIVE, "x")
    assert not link.is_to(TOKEN.access, "y")
    assert not Link(link.id, Right.SEND, link.signature).is_to(TOKEN.access, "x")
    assert not link.is_to(Token(TOKEN.id, "z" * 22).access, "x")
    assert not link._replace(signature=link.signature[:-1] + "g").is_to(TOKEN.access, "x")


@pytest.mark.parametrize(
    "word", [b"", b"AbCdEf12", b"AbCdEf12x" + b"0" * 32, b"AbCdEf12r" + b"0" * 31, b"AbCdEf12r" + b"A" * 32]
)
def test_what_cannot_be_a_link_is_none(word: bytes) -> None:
    assert Link.parse(word) is None
