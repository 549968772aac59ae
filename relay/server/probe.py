"""Find out whether a client that is not being read has left.

An upload that waits for its downloader is not read beyond what fits into a few buffers. If its client leaves then, the
end of its connection is stuck behind unread bytes and nobody sees it. When somebody else wants the name, this client
is made to show whether it lives. `MOVES` has every state of a probe and every move.

A client that lives takes an interim `100 Continue` (RFC 9110 section 15.2 obliges it to, and its body is on its way
already) and its kernel acknowledges it; the kernel of a client that has left responds with a reset. If no interim
response can be sent, the body is read ahead, into memory, until the end of the connection shows or a limit is reached.
"""

from collections.abc import Callable
from enum import Enum
from typing import NamedTuple, Protocol
from weakref import WeakKeyDictionary

#: Seconds after which a client is vouched for although nothing was learnt about it.
_PATIENCE = 1.5
#: Seconds until the first look, and the maximum between two looks; each is twice the one before.
_FIRST_LOOK, _LONGEST = 0.005, 0.3
#: Maximum bytes of its body that are read ahead of one client. As much may lie in the buffers on the way before the end
#: of a client that has left: usually up to 5 MB with HAProxy and 13 MB with nginx, but a kernel may keep more for each
#: connection (the last number of `sysctl net.ipv4.tcp_rmem`: 32 MB with Linux 6.18).
_AHEAD_MAXIMUM = 64 * 1024 * 1024
#: Maximum bytes that a process reads ahead, of all clients together.
_AHEAD_TOTAL = 256 * 1024 * 1024


class State(Enum):
    """What was done about a client."""

    #: Nobody asks.
    QUIET = "quiet"
    #: Somebody asks, and nothing was tried yet.
    ASKED = "asked"
    #: `100 Continue` was sent.
    INTERIM_SENT = "interim sent"
    #: Its body is read ahead.
    READING_AHEAD = "reading ahead"


class Event(Enum):
    """What somebody asks, or what a look finds."""

    #: Somebody wants to know whether the client lives.
    ASK = "ask"
    #: The answer does not matter any more.
    STOP = "stop"
    #: The client is being read, so its end would have been seen.
    IS_READ = "is read"
    #: The client is not being read, and it understands interim responses.
    CAN_SEND = "can send"
    #: The client is not being read, and it may not understand them.
    CANNOT_SEND = "cannot send"
    #: The client's kernel has acknowledged everything that was sent.
    ACKNOWLEDGED = "acknowledged"
    #: Nothing has changed since the last look.
    NOTHING = "nothing"
    #: Somebody has been asking for longer than `_PATIENCE`.
    LATE = "late"


class Action(Enum):
    """What has to be done with a move."""

    NONE = "none"
    SEND_INTERIM = "send interim"
    READ_AHEAD = "read ahead"
    #: The client lives, or nothing spoke against it.
    VOUCH = "vouch"


#: Every move that can be made. A look makes one of the lower ones, `ask` and `stop` the upper ones.
MOVES: dict[tuple[State, Event], tuple[State, Action]] = {
    (State.QUIET, Event.ASK): (State.ASKED, Action.NONE),
    (State.ASKED, Event.ASK): (State.ASKED, Action.NONE),
    (State.INTERIM_SENT, Event.ASK): (State.INTERIM_SENT, Action.NONE),
    (State.READING_AHEAD, Event.ASK): (State.READING_AHEAD, Action.NONE),
    (State.QUIET, Event.STOP): (State.QUIET, Action.NONE),
    (State.ASKED, Event.STOP): (State.QUIET, Action.NONE),
    (State.INTERIM_SENT, Event.STOP): (State.QUIET, Action.NONE),
    (State.READING_AHEAD, Event.STOP): (State.QUIET, Action.NONE),
    (State.ASKED, Event.IS_READ): (State.QUIET, Action.VOUCH),
    (State.ASKED, Event.CAN_SEND): (State.INTERIM_SENT, Action.SEND_INTERIM),
    (State.ASKED, Event.CANNOT_SEND): (State.READING_AHEAD, Action.READ_AHEAD),
    (State.ASKED, Event.NOTHING): (State.ASKED, Action.NONE),
    (State.ASKED, Event.LATE): (State.QUIET, Action.VOUCH),
    (State.INTERIM_SENT, Event.IS_READ): (State.QUIET, Action.VOUCH),
    (State.INTERIM_SENT, Event.ACKNOWLEDGED): (State.QUIET, Action.VOUCH),
    (State.INTERIM_SENT, Event.NOTHING): (State.INTERIM_SENT, Action.NONE),
    (State.INTERIM_SENT, Event.LATE): (State.QUIET, Action.VOUCH),
    (State.READING_AHEAD, Event.NOTHING): (State.READING_AHEAD, Action.NONE),
    (State.READING_AHEAD, Event.LATE): (State.QUIET, Action.VOUCH),
}


class Facts(NamedTuple):
    """What a look sees."""

    is_lost: bool
    is_read: bool
    takes_interim: bool
    has_acknowledged: bool
    is_late: bool


def find(state: State, facts: Facts) -> Event:
    """Return what a look at a client in this state has found."""
    if facts.is_late:
        return Event.LATE
    if facts.is_lost:
        return Event.NOTHING  # there is nobody to vouch for, and nobody to send anything to
    if facts.is_read and state is not State.READING_AHEAD:
        return Event.IS_READ
    if state is State.ASKED:
        return Event.CAN_SEND if facts.takes_interim else Event.CANNOT_SEND
    if state is State.INTERIM_SENT and facts.has_acknowledged:
        return Event.ACKNOWLEDGED
    return Event.NOTHING


class ReadAhead:
    """The memory that a process uses for bodies that are read ahead: maps each probe to a function that returns the
    bytes which its connection has read and nobody has taken."""

    def __init__(self) -> None:
        self.sizes: WeakKeyDictionary[object, Callable[[], int]] = WeakKeyDictionary()

    @property
    def has_room(self) -> bool:
        """Whether more may be read ahead."""
        return sum(size() for size in self.sizes.values()) < _AHEAD_TOTAL


class Line(Protocol):
    """The client's connection, as a probe needs it."""

    @property
    def is_lost(self) -> bool: ...
    @property
    def is_read(self) -> bool: ...
    @property
    def takes_interim(self) -> bool: ...
    @property
    def untaken(self) -> int: ...
    def has_acknowledged(self) -> bool: ...
    def send_interim(self) -> None: ...
    def resume_reading(self) -> None: ...


class Probe:
    """The probe of one client. Time is passed in, in monotonic seconds."""

    def __init__(self, line: Line, memory: ReadAhead | None) -> None:
        self.state = State.QUIET
        self._line = line
        self._memory = memory
        self._asked = 0.0
        self._looks = 0

    def __repr__(self) -> str:
        return f"<Probe {self.state.value}>"

    @property
    def is_asked(self) -> bool:
        return self.state is not State.QUIET

    def ask(self, now: float) -> None:
        """Record that somebody wants to know whether the client lives."""
        if not self.is_asked:
            self._asked, self._looks = now, 0
        self._move(Event.ASK)

    def interval(self, seconds: float) -> float:
        """Return the seconds until the next look if somebody asks, `seconds` at most."""
        return min(_FIRST_LOOK * 2**self._looks, _LONGEST, seconds) if self.is_asked else seconds

    def look(self, now: float) -> bool:
        """Return whether to vouch for the client: it lives, or it could not be found out in time.

        If not, call this again after `interval`.
        """
        self._looks += 1
        facts = Facts(
            is_lost=self._line.is_lost,
            is_read=self._line.is_read,
            takes_interim=self._line.takes_interim,
            has_acknowledged=self.state is State.INTERIM_SENT
            and not self._line.is_lost  # its socket is closed
            and self._line.has_acknowledged(),
            is_late=now >= self._asked + _PATIENCE,
        )
        action = self._move(find(self.state, facts))
        if action is Action.SEND_INTERIM:
            self._line.send_interim()
        elif action is Action.READ_AHEAD:
            self.read_further()
        return action is Action.VOUCH

    def stop(self) -> None:
        """Record that nobody needs to know any more."""
        self._move(Event.STOP)

    def read_further(self) -> None:
        """Read more of a body that is read ahead, within the limits. Called after each piece: the server may have
        stopped reading because enough is untaken."""
        if self.state is State.READING_AHEAD and self._memory is not None:
            line = self._line
            self._memory.sizes[self] = lambda: line.untaken
            if self._line.untaken < _AHEAD_MAXIMUM and self._memory.has_room:
                self._line.resume_reading()

    def forget(self) -> None:
        """Stop, and do not count what was read ahead any more."""
        if self.is_asked:
            self.stop()
        if self._memory is not None:
            self._memory.sizes.pop(self, None)

    def _move(self, event: Event) -> Action:
        self.state, action = MOVES[self.state, event]
        return action
