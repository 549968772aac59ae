"""What the relay's answers mean: which of them end a transfer, with which exit status and words. Pure."""

import json
from typing import NamedTuple, Self

from relay.client.failures import Exit, Failure
from relay.client.naming import shown
from relay.errors import Error

#: What the other side, or somebody on its behalf, has done.
_LEFT = {
    error.type for error in (Error.DOWNLOADER_GONE, Error.NODE_LOST, Error.CANCELLED, Error.REVOKED, Error.STALLED)
}
#: What a relay says that cannot work at the moment.
_DOWN = {error.type for error in (Error.STORE_DOWN, Error.STORE_FULL, Error.STORE_LOST, Error.DRAINING)}
_SERVER_ERROR = 500
_NOTHING_SAID = {
    401: "the relay refused: the token or link is unknown or has expired; ask for a new one",
    404: "nothing is there: ask the sender to start again",
    410: "the transfer was cancelled",
    413: "the file is too large for this relay: split it",
    424: "the transfer has failed: the other side, or a node of the relay, has left; send again",
}


class Refusal(NamedTuple):
    """An answer other than 2xx: its status, the relay's word for the reason, and its line; empty if it gave none."""

    status: int
    code: str
    line: str

    @classmethod
    def parse(cls, status: int, body: bytes) -> Self:
        """Return the refusal in a body, of which the beginning is enough. Whatever it is, this does not fail."""
        try:
            found = json.loads(body)
            code, line = found.get("code"), found.get("detail")
        except (ValueError, AttributeError, RecursionError):
            code = line = None
        return cls(status, code if isinstance(code, str) else "", shown(line) if isinstance(line, str) else "")

    def is_(self, error: Error) -> bool:
        return self.code == error.type

    @property
    def passes(self) -> bool:
        """Whether it may be different in a moment."""
        return self.status >= _SERVER_ERROR or self.status in (408, 429)

    @property
    def exit(self) -> Exit:
        if self.code in _LEFT:
            return Exit.LEFT
        if self.code in _DOWN or (self.status >= _SERVER_ERROR and not self.is_(Error.NO_DOWNLOADER)):
            return Exit.UNREACHABLE
        if self.status in (408, 410, 424) and not self.code:
            return Exit.LEFT
        return Exit.REFUSED

    def failure(self) -> Failure:
        """Return what the command fails with."""
        said = self.line or _NOTHING_SAID.get(self.status, f"the relay answered {self.status}: try again later")
        return Failure(self.exit, said)
