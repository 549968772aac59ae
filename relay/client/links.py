"""The addresses that people give each other, in both forms, and what is behind them. Pure."""

import re
from typing import NamedTuple, Self
from urllib.parse import quote, unquote, urlsplit

from relay.access import Link, Right, Token
from relay.client.failures import Exit, Failure
from relay.errors import Problem
from relay.names import nfc, parse_name

_NO_LINK = "this is not a link of a relay: it looks like https://relay.example/LINK/NAME"
_NO_SERVER = "the relay's address must look like https://relay.example (--server or RELAY_SERVER)"
#: What a page link has in place of `/`: browsers send nothing of what follows.
_PAGE = re.compile(r"/receive#")


class Address(NamedTuple):
    """What can be received: `word` (a link or a whole token) and a decoded `name`, at a server without a last `/`."""

    server: str
    word: str
    name: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the address in a link of either form. Raise Failure."""
        server, _, path = _PAGE.sub("/", text.strip(), count=1).rpartition("/")
        server, _, word = server.rpartition("/")
        path = path.partition("?")[0]
        raw = word.encode("ascii", "replace")
        if not path or (Link.parse(raw) is None and not _is_token(raw)):
            raise Failure(Exit.USAGE, _NO_LINK)
        if (link := Link.parse(raw)) is not None and link.right is Right.SEND:
            raise Failure(Exit.USAGE, "this link can only send: ask the sender for the one to receive")
        try:
            return cls(check_server(server), word, parse_name(path.encode()))
        except Problem as problem:
            raise Failure(Exit.USAGE, f"the link has a bad name: {problem.line}") from None

    @classmethod
    def of(cls, server: str, token: Token, name: str) -> Self:
        """Return the address from which alone `name` of a token's space can be received."""
        return cls(server, str(Link.make(token.access, Right.RECEIVE, nfc(name))), nfc(name))

    @property
    def url(self) -> str:
        return f"{self.server}/{self.word}/{quote(self.name, safe='')}"

    @property
    def page(self) -> str:
        """The address of the page that receives it. A chat's link preview takes nothing from there."""
        return f"{self.server}/receive#{self.word}/{quote(self.name, safe='')}"

    def __str__(self) -> str:
        return self.url


def check_server(text: str) -> str:
    """Return a server's address without a last `/`. Raise Failure if it is none, or has a password in it."""
    try:
        parts = urlsplit(text)
        is_good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
        parts.netloc.encode("idna")  # what finds the machine by its name fails with a label that is empty or too long
    except ValueError:
        raise Failure(Exit.USAGE, _NO_SERVER) from None
    if not is_good or parts.query or parts.fragment or re.search(r"[\s\x00-\x1f\x7f-\x9f]", unquote(text)):
        raise Failure(Exit.USAGE, _NO_SERVER)
    if "@" in parts.netloc:
        raise Failure(Exit.USAGE, "the relay's address must have no password in it: others can see it")
    return text.rstrip("/")


def parse_token(text: str) -> Token:
    """Return a token. Raise Failure."""
    try:
        return Token.parse(text.strip().encode())
    except Problem:
        raise Failure(Exit.USAGE, "this is not a token: get one with POST /token") from None


def _is_token(raw: bytes) -> bool:
    try:
        Token.parse(raw)
    except Problem:
        return False
    return True
