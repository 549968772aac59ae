"""TODO."""

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Self

from relay.states import State

#: Seconds over which a meter smooths.
_SMOOTHING = 5.0


class Meter:
    """Bytes a second for people to read: smoothed over some seconds, because buffers take bytes in bursts."""

    __slots__ = ("_rate", "_then", "_total")

    def __init__(self, now: float) -> None:
        self._then, self._total, self._rate = now, 0, 0.0

    def read(self, total: int, now: float) -> int:
        """The rate after `total` bytes, at `now` in seconds of the clock that it began with."""
        seconds = max(now - self._then, 0.001)
        share = 1 - math.exp(-seconds / _SMOOTHING)
        self._rate += share * ((total - self._total) / seconds - self._rate)
        self._then, self._total = now, total
        return round(self._rate)


@dataclass(frozen=True, slots=True)
class Progress:
    """One transfer, as the node that holds its upload reports it.

    `delivered`: bytes that the downloader's node has handed over; `rate`: bytes a second, lately; `seconds`: since
    when it is in its state.  `name` is percent-encoded.
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

    def dump(self) -> str:
        """As a field of the report in Redis, which an operator may read."""
        return json.dumps({key: value for key, value in asdict(self).items() if key != "id"})

    @classmethod
    def load(cls, transfer_id: str, text: str) -> Self:
        fields = json.loads(text)
        fields["state"] = State(fields["state"])
        return cls(transfer_id, **fields)

    @property
    def share(self) -> float | None:
        """How much of it is delivered, from 0 to 1; None where its length is unknown."""
        if self.length is None:
            return None
        return min(1.0, self.delivered / self.length) if self.length else float(self.state is State.STREAMING)


def by_urgency(transfers: Iterable[Progress]) -> list[Progress]:
    """Streams first, and the oldest of each state first."""
    return sorted(transfers, key=lambda t: (t.state is not State.STREAMING, -t.seconds))
