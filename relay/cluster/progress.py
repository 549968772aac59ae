"""How far and how fast transfers are, for operators. Pure."""

import json
from collections import deque
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import NamedTuple, Self

from relay.states import State

#: Seconds over which a meter averages, and between two of the looks that it remembers. It remembers at least three.
_WINDOW, _APART, _LEAST = 20.0, 2.0, 3
#: Seconds, beside twice the longest pause before, after which a pause means that nothing moves any more.
_STILL = 4.0
#: Seconds at the start of a transfer that its meter leaves out: buffers take their fill then, at once.
SETTLING = 1.0
#: Seconds for which a history sums bytes up, and the maximum such sums that it keeps: five minutes.
STEP, STEPS = 10.0, 30


class Meter:
    """Measures bytes a second for people to read: an average over some seconds.

    A client that reads slowly has its kernel make room in steps: curl with `--limit-rate 1M` acknowledged 10 MB every
    10 s. So the average is from one step to another, and a pause as long as those before does not count yet.

    What happens in the first `settling` seconds does not count. Until the rate is known, it is 0.
    """

    __slots__ = ("_from", "_steps")

    def __init__(self, now: float, *, total: int = 0, settling: float = 0.0) -> None:
        self._from = now + settling
        #: When the total was seen to have grown, in seconds, and to how much.
        self._steps = [(now, total)]

    def read(self, total: int, now: float) -> int:
        """Return the rate after `total` bytes. `now` is in seconds of the clock that the meter began with."""
        steps = self._steps
        if steps[-1][0] < self._from or total < steps[-1][1]:
            self._steps = [(now, total)]
            return 0
        if total > steps[-1][1]:
            if len(steps) > 1 and steps[-1][0] - steps[-2][0] < _APART:
                steps.pop()
            steps.append((now, total))
        while len(steps) > _LEAST and now - steps[1][0] > _WINDOW:
            del steps[0]
        (begun, before), (last, reached) = steps[0], steps[-1]
        pause = max((later - earlier for (earlier, _), (later, _) in pairwise(steps)), default=0.0)
        if now - last > 2 * pause + _STILL:
            return 0
        seconds = last - begun + max(0.0, now - last - pause)
        return round((reached - before) / max(seconds, 0.001))


class History:
    """How many bytes were counted in each of the last `STEPS` times `STEP` seconds. It takes about 1 KiB."""

    def __init__(self, now: float) -> None:
        self._then, self._total, self._ends = now, 0, now + STEP
        self._sum = 0.0
        self._sums: deque[int] = deque(maxlen=STEPS - 1)

    def add(self, total: int, now: float) -> None:
        """Record that `total` bytes were counted by `now`, in seconds of the clock that it began with.

        What came since the last call is taken to have come evenly.
        """
        came = float(total - self._total)
        rate = came / max(now - self._then, 0.001)
        while now >= self._ends:
            part = min(came, rate * (self._ends - self._then))
            self._sums.append(round(self._sum + part))
            self._then, self._ends, self._sum, came = self._ends, self._ends + STEP, 0.0, came - part
        self._sum += came
        self._then, self._total = now, total

    def read(self) -> tuple[int, ...]:
        """Return the bytes of each step, the oldest first. The last step is not over yet."""
        return (*self._sums, round(self._sum))


class Taken(NamedTuple):
    """How far and how fast a download is, as its client's machine has acknowledged: byte offset, bytes a second."""

    position: int
    rate: int


@dataclass(frozen=True, slots=True)
class Progress:
    """One transfer, as the node that holds its upload reports it.

    `name` is percent-encoded. `length` and `delivered` are in bytes, `rate` is the recent rate in bytes a second, and
    `seconds` is the time that it has been in its state. `delivered` and `rate` are of what the downloader's machine has
    acknowledged; or, as long as its node has not reported that, of what its node has handed over.
    """

    id: str
    token: str
    name: str
    state: State
    uploader: str
    downloader: str
    length: int | None
    delivered: int
    rate: float
    seconds: float
    #: The seconds that it waits at most for the side that is missing; None if both are there.
    left: float | None = None
    #: The number of its leg, with which the keys of its streams end unless it is 0.
    leg: int = 0

    def dump(self) -> str:
        """Return the value of the field in Redis, as JSON, which an operator can read."""
        return json.dumps({key: value for key, value in asdict(self).items() if key != "id"})

    @classmethod
    def load(cls, transfer_id: str, text: str) -> Self:
        """Return what `dump` wrote."""
        fields = json.loads(text)
        fields["state"] = State(fields["state"])
        known = {name: value for name, value in fields.items() if name in cls.__dataclass_fields__}
        return cls(transfer_id, **known)  # a newer node may say more

    def taken(self, taken: Taken | None) -> Self:
        """Return the same with what the node of its download says, if that says anything."""
        if taken is None or self.state is not State.STREAMING:
            return self
        return replace(self, delivered=taken.position, rate=taken.rate)

    @property
    def remaining(self) -> float | None:
        """The seconds that it needs at this rate until it is complete; None if that is unknown, or it is at its end."""
        if self.state is not State.STREAMING or self.rate < 1 or self.length is None or self.delivered >= self.length:
            return None
        return (self.length - self.delivered) / self.rate

    @property
    def share(self) -> float | None:
        """How much of it is delivered, from 0 to 1; None if its length is unknown."""
        if self.length is None:
            return None
        return min(1.0, self.delivered / self.length) if self.length else float(self.state is State.STREAMING)


def by_urgency(transfers: Iterable[Progress]) -> list[Progress]:
    """Return the transfers that stream first, then those that were interrupted, then the others; the oldest first."""
    rank = {State.STREAMING: 0, State.FINISHING: 0, State.INTERRUPTED: 1}
    return sorted(transfers, key=lambda t: (rank.get(t.state, 2), -t.seconds))
