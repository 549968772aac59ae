"""What there is to receive, and how an upload has ended, as far as the relay says. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Self

from relay.client.failures import Exit, Failure
from relay.client.http import Answer
from relay.digests import REPR_DIGEST, parse_digest
from relay.errors import Problem

#: A number of bytes in a header.
NUMBER = re.compile(r"[0-9]{1,18}")
_CONDITION, _ABSENT = 412, 404
#: What some outcomes mean to a receiver that has nothing.
_ENDED = {
    "complete": "somebody else has received it",
    "cancelled": "it was cancelled",
    "no_downloader": "the sender has waited too long",
    "revoked": "the token was revoked, or has expired",
    "too_large": "it is too large for this relay",
    "too_long": "it took longer than this relay allows",
}


@dataclass(frozen=True)
class Offer:
    """What there is to receive. `length` is in bytes; None if it is unknown. The `name` is safe as a file's name."""

    name: str
    etag: str
    length: int | None
    media_type: str


class End(NamedTuple):
    """How an upload ended: the outcome, the bytes that were delivered, and the SHA-256 of the file.

    The words are empty, and the bytes None, if the relay does not know them (any more).
    """

    outcome: str
    size: int | None
    sha256: str
    #: Whether there is another upload of the name by now.
    is_replaced: bool

    @classmethod
    def parse(cls, answer: Answer) -> Self | None:
        """Return what the answer to a HEAD says that names the upload in `If-Match`; None if it has not ended."""
        if answer.status not in (_CONDITION, _ABSENT):
            return None
        size = answer.headers.get("relay-delivered", "")
        return cls(
            answer.headers.get("relay-outcome", ""),
            int(size) if NUMBER.fullmatch(size) else None,
            checksum_in(answer.headers),
            answer.status == _CONDITION,
        )

    def why(self, done: int) -> str:
        """Return why nothing more comes for a receiver that has `done` bytes, and not all."""
        if self.outcome == "complete" and done:  # a proxy has taken all of it
            return "the last bytes were lost on their way, and the relay counts them as delivered"
        return _ENDED.get(self.outcome, "the sender has left")


def checksum_in(headers: Mapping[str, str]) -> str:
    """Return the SHA-256 of the whole file that the headers give; empty if they give none. Raise Failure."""
    try:
        return parse_digest(headers.get(REPR_DIGEST, ""))
    except Problem:
        raise Failure(Exit.CORRUPTED, "the relay gives a malformed checksum: ask the sender to send again") from None
