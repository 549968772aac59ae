"""The states of a name, the events that can happen to it, and the outcomes of a transfer. Pure: it imports nothing.

A name under a token is FREE, or one live transfer holds it, which is WAITING for its downloader, STREAMING,
FINISHING, or INTERRUPTED: its uploader is away and may return. Every event is one call of a script in `store/lua/`, so
every move is atomic: CLAIM, JOIN, FINISH, LEAVE, INTERRUPT and RETURN call the script of that name; GIVE_UP, END and
CLOSE call `end.lua`, each with the states in which it may end a transfer. `MOVES` says what the script answers to each
event in each state, and in which state it leaves the name. The upload's node runs FINISH in the name of the download
when it writes all of a small upload: by `whole.lua`.

A leg is one unbroken run of bytes between one connection of the uploader and one of the downloader. LEAVE, INTERRUPT
and RETURN end a leg and not the transfer, and the next leg gets the next number. It has streams of its own: what a
connection of an earlier leg still writes goes where nobody reads.

There is no state "ended": the script that ends a transfer deletes the claim in the same step. So a name is free as soon
as its transfer has ended, and exactly one caller of `end.lua` gets ENDED; that caller logs and counts the transfer.

Bytes that a downloader has been handed cannot be taken back. So a download asks before it hands over the last bytes.
From then on the transfer is FINISHING, and as long as the download's node is alive, that download alone decides how the
transfer ends. Otherwise an uploader could be told that the transfer was cancelled although the whole file arrived.

`diagram()` makes the diagram in the documentation.
"""

from enum import StrEnum
from typing import NamedTuple, Self


class State(StrEnum):
    """What a name is doing. FREE means that there is no transfer hash; the others are values of its field `state`."""

    FREE = "free"
    WAITING = "waiting"
    STREAMING = "streaming"
    FINISHING = "finishing"
    INTERRUPTED = "interrupted"


class Event(StrEnum):
    """What a node may ask for a name; each event is one call of a script."""

    CLAIM = "claim"  # an upload wants the name
    JOIN = "join"  # a download wants the upload
    GIVE_UP = "give up"  # the uploader has waited long enough: end, but only if nobody has joined meanwhile
    FINISH = "finish"  # the download is about to hand over the last bytes
    END = "end"  # a side or an operator wants it to end: end, but only if it is not finishing
    CLOSE = "close"  # the download says how it ended; or any node, if the download's node is dead
    LEAVE = "leave"  # the download has left, and may come back
    INTERRUPT = "interrupt"  # the uploader has left, and may return
    RETURN = "return"  # the uploader is back, whatever Redis knows of its older connection


class Answer(StrEnum):
    """What a script answers to an event: the first word of its reply."""

    CLAIMED = "claimed"
    BUSY = "busy"
    JOINED = "joined"
    TAKEN = "taken"
    ABSENT = "absent"
    ATTACHED = "attached"
    FINISHING = "finishing"
    BROKEN = "broken"
    RETURNED = "returned"
    ENDED = "ended"
    KEPT = "kept"
    GONE = "gone"


class Outcome(StrEnum):
    """How a transfer ended: one word, which is logged and counted once for each transfer."""

    COMPLETE = "complete"
    NO_DOWNLOADER = "no_downloader"
    UPLOADER_GONE = "uploader_gone"
    DOWNLOADER_GONE = "downloader_gone"
    NODE_LOST = "node_lost"
    CANCELLED = "cancelled"
    REVOKED = "revoked"
    TOO_LARGE = "too_large"
    TOO_LONG = "too_long"
    STALLED = "stalled"
    DRAINED = "drained"
    STORE_LOST = "store_lost"
    #: How a leg ended, not a transfer: one side has left, and the transfer goes on when it is back.
    BROKEN = "broken"

    @classmethod
    def of_transfers(cls) -> list[Self]:
        """Return the outcomes that a transfer can have."""
        return [outcome for outcome in cls if outcome is not cls.BROKEN]


class Move(NamedTuple):
    """What the script returns, and the state in which it leaves the name."""

    answer: Answer
    state: State


MOVES: dict[tuple[State, Event], Move] = {
    (State.FREE, Event.CLAIM): Move(Answer.CLAIMED, State.WAITING),
    (State.FREE, Event.JOIN): Move(Answer.ABSENT, State.FREE),
    (State.FREE, Event.GIVE_UP): Move(Answer.GONE, State.FREE),
    (State.FREE, Event.FINISH): Move(Answer.GONE, State.FREE),
    (State.FREE, Event.END): Move(Answer.GONE, State.FREE),
    (State.FREE, Event.CLOSE): Move(Answer.GONE, State.FREE),
    (State.FREE, Event.LEAVE): Move(Answer.GONE, State.FREE),
    (State.FREE, Event.INTERRUPT): Move(Answer.GONE, State.FREE),
    (State.FREE, Event.RETURN): Move(Answer.GONE, State.FREE),
    (State.WAITING, Event.CLAIM): Move(Answer.BUSY, State.WAITING),
    (State.WAITING, Event.JOIN): Move(Answer.JOINED, State.STREAMING),
    (State.WAITING, Event.GIVE_UP): Move(Answer.ENDED, State.FREE),
    (State.WAITING, Event.FINISH): Move(Answer.GONE, State.WAITING),
    (State.WAITING, Event.END): Move(Answer.ENDED, State.FREE),
    (State.WAITING, Event.CLOSE): Move(Answer.ENDED, State.FREE),
    (State.WAITING, Event.LEAVE): Move(Answer.GONE, State.WAITING),
    (State.WAITING, Event.INTERRUPT): Move(Answer.BROKEN, State.INTERRUPTED),
    (State.WAITING, Event.RETURN): Move(Answer.RETURNED, State.WAITING),
    (State.STREAMING, Event.CLAIM): Move(Answer.BUSY, State.STREAMING),
    (State.STREAMING, Event.JOIN): Move(Answer.TAKEN, State.STREAMING),
    (State.STREAMING, Event.GIVE_UP): Move(Answer.KEPT, State.STREAMING),
    (State.STREAMING, Event.FINISH): Move(Answer.FINISHING, State.FINISHING),
    (State.STREAMING, Event.END): Move(Answer.ENDED, State.FREE),
    (State.STREAMING, Event.CLOSE): Move(Answer.ENDED, State.FREE),
    (State.STREAMING, Event.LEAVE): Move(Answer.BROKEN, State.WAITING),
    (State.STREAMING, Event.INTERRUPT): Move(Answer.BROKEN, State.INTERRUPTED),
    (State.STREAMING, Event.RETURN): Move(Answer.RETURNED, State.WAITING),
    (State.FINISHING, Event.CLAIM): Move(Answer.BUSY, State.FINISHING),
    (State.FINISHING, Event.JOIN): Move(Answer.TAKEN, State.FINISHING),
    (State.FINISHING, Event.GIVE_UP): Move(Answer.KEPT, State.FINISHING),
    (State.FINISHING, Event.FINISH): Move(Answer.FINISHING, State.FINISHING),
    (State.FINISHING, Event.END): Move(Answer.KEPT, State.FINISHING),
    (State.FINISHING, Event.CLOSE): Move(Answer.ENDED, State.FREE),
    (State.FINISHING, Event.LEAVE): Move(Answer.BROKEN, State.WAITING),
    (State.FINISHING, Event.INTERRUPT): Move(Answer.KEPT, State.FINISHING),
    (State.FINISHING, Event.RETURN): Move(Answer.KEPT, State.FINISHING),
    (State.INTERRUPTED, Event.CLAIM): Move(Answer.BUSY, State.INTERRUPTED),
    (State.INTERRUPTED, Event.JOIN): Move(Answer.ATTACHED, State.INTERRUPTED),
    (State.INTERRUPTED, Event.GIVE_UP): Move(Answer.KEPT, State.INTERRUPTED),
    (State.INTERRUPTED, Event.FINISH): Move(Answer.GONE, State.INTERRUPTED),
    (State.INTERRUPTED, Event.END): Move(Answer.ENDED, State.FREE),
    (State.INTERRUPTED, Event.CLOSE): Move(Answer.ENDED, State.FREE),
    (State.INTERRUPTED, Event.LEAVE): Move(Answer.GONE, State.INTERRUPTED),
    (State.INTERRUPTED, Event.INTERRUPT): Move(Answer.BROKEN, State.INTERRUPTED),
    (State.INTERRUPTED, Event.RETURN): Move(Answer.RETURNED, State.WAITING),
}


def diagram() -> str:
    """Return the moves that change the state as a Mermaid state diagram."""
    lines = ["stateDiagram-v2", f"    [*] --> {State.FREE}"]
    for (state, event), move in MOVES.items():
        if move.state is not state:
            lines.append(f"    {state} --> {move.state}: {event}")
    return "\n".join(lines)
