"""What a name can be doing, what can happen to it, and how a transfer ends.  Pure: nothing is imported.

A name under a token is FREE, or one live transfer holds it: WAITING for its downloader, STREAMING, or FINISHING.
Every event is one Lua script in `lua/`, so every move is atomic; `MOVES` says what each script answers in
each state and where it leaves the name.  There is no state for "ended": the script that ends a transfer
deletes the claim in the same step, so a name is free the moment its transfer is over, and exactly one
caller hears `ended` (that one logs and counts the transfer).

What the downloader has been handed cannot be taken back.  So a download asks before it hands over the last of
it, and from then on, FINISHING, it alone says how the transfer ended, as long as its node lives: else an uploader
could be told that it was cancelled, and the file have arrived all the same.

The diagram in the README is `diagram()`.
"""

from enum import StrEnum
from typing import NamedTuple


class State(StrEnum):
    """What a name is doing.  FREE is the absence of the transfer hash; the others are its field `state`."""

    FREE = "free"
    WAITING = "waiting"
    STREAMING = "streaming"
    FINISHING = "finishing"


class Event(StrEnum):
    """What a node may ask of a name; each is one script."""

    CLAIM = "claim"  # an upload wants the name
    JOIN = "join"  # a download wants the upload
    GIVE_UP = "give up"  # the uploader waited long enough: end, but only if nobody joined meanwhile
    FINISH = "finish"  # the download is about to hand over the last bytes
    END = "end"  # somebody wants it to be over: end, but only if it is not finishing
    CLOSE = "close"  # it is over, as its download says; or as is found, where there is no download any more


class Answer(StrEnum):
    """The one word with which a script answers."""

    CLAIMED = "claimed"
    BUSY = "busy"
    JOINED = "joined"
    TAKEN = "taken"
    ABSENT = "absent"
    FINISHING = "finishing"
    ENDED = "ended"
    KEPT = "kept"
    GONE = "gone"


class Outcome(StrEnum):
    """How a transfer ended.  One word, one log line, one count each."""

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


class Move(NamedTuple):
    """What the script answers, and the state it leaves."""

    answer: Answer
    state: State


MOVES: dict[tuple[State, Event], Move] = {
    (State.FREE, Event.CLAIM): Move(Answer.CLAIMED, State.WAITING),
    (State.FREE, Event.JOIN): Move(Answer.ABSENT, State.FREE),
    (State.FREE, Event.GIVE_UP): Move(Answer.GONE, State.FREE),
    (State.FREE, Event.FINISH): Move(Answer.GONE, State.FREE),
    (State.FREE, Event.END): Move(Answer.GONE, State.FREE),
    (State.FREE, Event.CLOSE): Move(Answer.GONE, State.FREE),
    (State.WAITING, Event.CLAIM): Move(Answer.BUSY, State.WAITING),
    (State.WAITING, Event.JOIN): Move(Answer.JOINED, State.STREAMING),
    (State.WAITING, Event.GIVE_UP): Move(Answer.ENDED, State.FREE),
    (State.WAITING, Event.FINISH): Move(Answer.GONE, State.WAITING),
    (State.WAITING, Event.END): Move(Answer.ENDED, State.FREE),
    (State.WAITING, Event.CLOSE): Move(Answer.ENDED, State.FREE),
    (State.STREAMING, Event.CLAIM): Move(Answer.BUSY, State.STREAMING),
    (State.STREAMING, Event.JOIN): Move(Answer.TAKEN, State.STREAMING),
    (State.STREAMING, Event.GIVE_UP): Move(Answer.KEPT, State.STREAMING),
    (State.STREAMING, Event.FINISH): Move(Answer.FINISHING, State.FINISHING),
    (State.STREAMING, Event.END): Move(Answer.ENDED, State.FREE),
    (State.STREAMING, Event.CLOSE): Move(Answer.ENDED, State.FREE),
    (State.FINISHING, Event.CLAIM): Move(Answer.BUSY, State.FINISHING),
    (State.FINISHING, Event.JOIN): Move(Answer.TAKEN, State.FINISHING),
    (State.FINISHING, Event.GIVE_UP): Move(Answer.KEPT, State.FINISHING),
    (State.FINISHING, Event.FINISH): Move(Answer.FINISHING, State.FINISHING),
    (State.FINISHING, Event.END): Move(Answer.KEPT, State.FINISHING),
    (State.FINISHING, Event.CLOSE): Move(Answer.ENDED, State.FREE),
}


def diagram() -> str:
    """The moves that change the state, as a Mermaid state diagram."""
    lines = ["stateDiagram-v2", f"    [*] --> {State.FREE}"]
    for (state, event), move in MOVES.items():
        if move.state is not state:
            lines.append(f"    {state} --> {move.state}: {event}")
    return "\n".join(lines)
