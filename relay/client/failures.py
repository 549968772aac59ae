"""How a command of the client may fail: an exit status, and one line that says what to do. Pure."""

from enum import IntEnum


class Exit(IntEnum):
    """The exit statuses of `relay send` and `relay receive`."""

    DONE = 0
    REFUSED = 1
    USAGE = 2
    UNREACHABLE = 3
    LEFT = 4
    LOCAL = 5
    CORRUPTED = 6
    INTERRUPTED = 130


class Failure(Exception):
    """Raised if the command cannot go on. `line` tells the user why, and what to do."""

    def __init__(self, status: Exit, line: str) -> None:
        super().__init__(line)
        self.status = status
        self.line = line


class Useless(Failure):
    """What is here can never become the file."""


class Differs(Useless):
    """What arrived is not what was sent."""

    def __init__(self) -> None:
        super().__init__(
            Exit.CORRUPTED,
            "what arrived is not what was sent: its SHA-256 differs. The relay has told the sender that all was "
            "delivered. Ask the sender to send it again",
        )
