"""What this node holds and has done: its uploads and downloads, bytes, outcomes, and the tokens used lately."""

import socket
import time
from collections import Counter
from typing import Protocol

from relay import __version__
from relay.cluster.progress import History, Meter, Progress, Taken
from relay.states import Outcome, State
from relay.store.records import Transfer

#: Seconds between two looks at what all clients have taken: with 10,000 downloads, one look takes tens of milliseconds.
_LOOK = 0.5


class Uploading(Protocol):
    """An upload that this node holds."""

    transfer: Transfer
    #: When somebody last looked into Redis for it, in monotonic seconds.
    looked: float

    def progress(self, now: float) -> Progress:
        """Return how far it is at `now`, in monotonic seconds."""


class Downloading(Protocol):
    """A download that this node holds."""

    transfer: Transfer
    #: The node of its upload.
    peer: str
    #: The byte offset up to which bytes were handed over.
    position: int

    def taken(self, now: float) -> Taken:
        """Return what its client has taken by `now`, in monotonic seconds."""


class Load:
    """The clients of one node, and its counters since it started."""

    def __init__(self) -> None:
        self.counts: Counter[Outcome] = Counter()
        #: The uploads on this node by state (INTERRUPTED: those whose uploader it waits for), and the downloads; the
        #: oldest first.
        self.uploads: dict[State, dict[Uploading, None]] = {
            State.WAITING: {},
            State.STREAMING: {},
            State.INTERRUPTED: {},
        }
        self.downloads: dict[Downloading, None] = {}
        #: Tokens that were made or used since the last report.
        self.used_tokens: set[str] = set()
        #: How often a side has left a transfer that goes on when it is back, by side; and how often one has come back.
        self.interruptions: Counter[str] = Counter()
        self.resumptions: Counter[str] = Counter()
        #: Bytes that were sent once more, and that were received and thrown away because the downloader has them.
        self.rewound = self.skipped = 0
        #: Bytes received from uploaders, and delivered to downloaders.
        self.received = self.delivered = 0
        #: Whether this node shuts down.
        self.is_draining = False
        self._started, now = int(time.time()), time.monotonic()
        self._meter_in, self._meter_out = Meter(now), Meter(now)
        self._rate_in = self._rate_out = 0
        #: The bytes that the machines of downloaders have acknowledged, and when that was last looked at.
        self._taken, self._history, self._looked = 0, History(now), -_LOOK

    def _look(self, now: float) -> None:
        """Measure the rates. Of a download that broke off, what was handed over counts as taken."""
        if now - self._looked < _LOOK:
            return
        self._looked = now
        waiting = sum(max(0, download.position - download.taken(now).position) for download in self.downloads)
        self._taken = max(self._taken, self.delivered - waiting)
        self._history.add(self._taken, now)
        self._rate_in = self._meter_in.read(self.received, now)
        self._rate_out = self._meter_out.read(self._taken, now)

    def facts(self) -> dict[str, str | int]:
        """Return the fields of this node's hash in Redis. Rates are in bytes a second, times in Unix seconds."""
        self._look(time.monotonic())
        return {
            "host": socket.gethostname(),
            "version": __version__,
            "started": self._started,
            "draining": int(self.is_draining),
            "waiting": len(self.uploads[State.WAITING]),
            "streaming": len(self.uploads[State.STREAMING]) + len(self.downloads),
            "interrupted": len(self.uploads[State.INTERRUPTED]),
            "uploading": len(self.uploads[State.STREAMING]),
            "rate_in": self._rate_in,
            "rate_out": self._rate_out,
            "history": " ".join(map(str, self._history.read())),
            **{outcome: self.counts[outcome] for outcome in Outcome.of_transfers()},
        }
