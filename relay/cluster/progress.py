"""How far and how fast an upload is, for operators. Pure."""

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Self

from relay.states import State

#: Seconds over which a meter smooths its rate.
_SMOOTHING = 5.0


class Meter:
    """Measures bytes a second for people to read: smoothed over some seconds, because buffers take bytes in bursts."""

    __slots__ = ("_rate", "_then", "_total")

    def __init__(self, now: float, *, total: int = 0) -> None:
        self._then, self._total, self._rate = now, total, 0.0

    def read(self, total: int, now: float) -> int:
        """Return the rate after `total` bytes. `now` is in seconds of the clock that the meter began with."""
        seconds = max(now - self._then, 0.001)
        share = 1 - math.exp(-seconds / _SMOOTHING)
        self._rate += share * ((total - self._total) / seconds - self._rate)
        self._then, self._total = now, total
        return round(self._rate)


@dataclass(frozen=True, slots=True)
class Progress:
    """One transfer, as the node that holds its upload reports it.

    `name` is percent-encoded. `length` and `delivered` (what the downloader's node has handed over) are in bytes,
    `rate` is the recent rate in bytes a second, and `seconds` is the time that it has been in its state.
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
