"""This node among the others: its heartbeat, who else is alive, and the inbox through which others wake it.

A wake-up carries no state, only what it is about: whoever listens looks into Redis again.  So one that is lost
costs time (the listener's own slow re-check) and nothing else, and one too many costs a look.
"""

import asyncio
import contextlib
import logging
import secrets
import socket
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Set
from typing import Protocol

from relay import __version__
from relay.cluster.inbox import Listener
from relay.cluster.membership import Roll
from relay.cluster.progress import Meter, Progress
from relay.errors import StoreUnavailable
from relay.settings import Settings
from relay.states import Outcome, State
from relay.store.records import Transfer
from relay.store.store import Store
from relay.tasks import stop

log = logging.getLogger("relay.nodes")

#: Seconds between looks into Redis for a client that waits, in case its wake-up was lost.
RECHECK = 30.0
#: Seconds between the rounds that look for waiting uploads, and how many are looked at in one round trip.
_ROUND, _BATCH = 1.0, 100
#: Seconds one read of the inbox blocks.
_INBOX_BLOCK = 5.0


class Uploading(Protocol):
    """An upload that this node holds."""

    transfer: Transfer
    #: When (monotonic seconds) somebody last looked into Redis for it.
    looked: float

    def progress(self, now: float) -> Progress:
        """How far it is, at `now` in monotonic seconds."""


class Node:
    """Heartbeat, roll and inbox of this process.  Use `running` around the server's life."""

    def __init__(self, settings: Settings, store: Store) -> None:
        #: One that was started again under its name is another node: it has none of the old one's clients.
        self.id = f"{settings.node}-{secrets.token_hex(3)}"
        self.counts: Counter[Outcome] = Counter()
        #: The uploads that are here, by state, and the downloads that stream; the oldest first.
        self.uploads: dict[State, dict[Uploading, None]] = {State.WAITING: {}, State.STREAMING: {}}
        self.downloads: dict[object, None] = {}
        #: Tokens that were made or used since the last report.
        self.used: set[str] = set()
        #: Bytes from uploaders, and to downloaders, since the start.
        self.received = self.delivered = 0
        #: Called with the token, the name and the id of an upload that somebody asked for and that is not here.
        self.disown: Callable[[str, str, str], None] = lambda token, name, transfer_id: None
        self._settings = settings
        self._store = store
        self._started = int(time.time())
        self._meter_in, self._meter_out = Meter(time.monotonic()), Meter(time.monotonic())
        self._listeners: dict[str, set[Listener]] = defaultdict(set)
        self._roll = Roll(self.id, death=settings.node_death, heartbeat=settings.heartbeat)

    @property
    def alive(self) -> Set[str]:
        """The nodes that live, by the last roll."""
        return self._roll.alive

    @contextlib.contextmanager
    def listening(self, *topics: str) -> Iterator[Listener]:
        """A listener to wake-ups about any of `topics`."""
        listener = Listener()
        for topic in topics:
            self._listeners[topic].add(listener)
        try:
            yield listener
        finally:
            for topic in topics:
                self._listeners[topic].discard(listener)
                if not self._listeners[topic]:
                    del self._listeners[topic]

    def listens(self, topic: str) -> bool:
        """Whether anybody here listens to `topic`."""
        return topic in self._listeners

    def wake(self, topic: str) -> None:
        """Wakes the listeners of this node.

        Where nobody listens to an upload's `Transfer.question`, the upload is not here, and is disowned.
        """
        for listener in self._listeners.get(topic, ()):
            listener.set()
        if topic.count(" ") == 2 and not self.listens(topic):  # noqa: PLR2004 (see `Transfer.question`)
            self.disown(*topic.split(" "))

    def wake_all(self) -> None:
        """Wakes everybody here: the nodes alive have changed, wake-ups may have been lost, or we drain."""
        for listeners in self._listeners.values():
            for listener in listeners:
                listener.set()

    async def send_wake(self, node: str, about: str) -> None:
        """Wakes the listeners of any node.  A failure is left to the listener's own re-check."""
        if node == self.id:
            self.wake(about)
        elif node:
            with contextlib.suppress(StoreUnavailable):
                await self._store.wake(node=node, about=about)

    async def is_alive(self, node: str) -> bool:
        """Whether `node` beats.  Asks Redis only for one that is not on the last roll: it may be new.

        When Redis does not answer, or has only just come back, nobody is dead.
        """
        if node in self._roll.alive or not self._roll.is_steady(time.monotonic()):
            return True
        try:
            return await self._store.is_beating(node=node)
        except StoreUnavailable:
            return True

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Beats and reads the inbox; signs off at the end."""
        with contextlib.suppress(StoreUnavailable):
            await self._beat()
        work = (self._beat_for_ever(), self._read_for_ever(), self._look_for_ever())
        tasks = [asyncio.create_task(each) for each in work]
        try:
            yield
        finally:
            await stop(tasks)
            with contextlib.suppress(StoreUnavailable):
                await self._store.sign_off(node=self.id)

    def facts(self) -> dict[str, str | int]:
        """Return what this node reports of itself, as of now."""
        now = time.monotonic()
        return {
            "host": socket.gethostname(),
            "version": __version__,
            "started": self._started,
            "waiting": len(self.uploads[State.WAITING]),
            "streaming": len(self.uploads[State.STREAMING]) + len(self.downloads),
            "uploading": len(self.uploads[State.STREAMING]),
            "rate_in": self._meter_in.read(self.received, now),
            "rate_out": self._meter_out.read(self.delivered, now),
            **{outcome: self.counts[outcome] for outcome in Outcome},
        }

    async def _beat(self) -> None:
        ages = await self._store.beat(node=self.id, facts=self.facts())
        if lost := self._roll.call(ages, time.monotonic()):
            log.warning("nodes lost: %s", " ".join(sorted(lost)))
            self.wake_all()

    async def _beat_for_ever(self) -> None:
        reachable = True
        while True:
            try:
                await self._beat()
                if not reachable:
                    log.warning("Redis answers again")
                reachable = True
            except StoreUnavailable:
                if reachable:
                    log.error("Redis does not answer: new requests get 503 until it does")
                reachable = False
            except Exception:  # a node that does not beat is taken for dead, with all its clients
                log.exception("a bug: this heartbeat failed")
            await asyncio.sleep(self._settings.heartbeat)

    async def _look_for_ever(self) -> None:
        while True:
            await asyncio.sleep(_ROUND)
            try:
                await self.look_round(time.monotonic())
            except StoreUnavailable:
                pass  # the heartbeat's loop says so in the log
            except Exception:
                log.exception("a bug: the waiting uploads were not looked at")

    async def look_round(self, now: float) -> None:
        """Wakes the uploads that wait though Redis has news of them; `now` in monotonic seconds.

        They are many and there is hardly ever any, so each costs a share of a round trip, not one of its own.
        Raises StoreUnavailable.
        """
        due = [upload for upload in self.uploads[State.WAITING] if now - upload.looked >= RECHECK]
        for start in range(0, len(due), _BATCH):
            batch = due[start : start + _BATCH]
            for upload in batch:
                upload.looked = now
            for transfer in await self._store.news([upload.transfer for upload in batch]):
                self.wake(transfer.id)

    async def _read_for_ever(self) -> None:
        after, missed = "0-0", False
        while True:
            try:
                after, topics = await self._store.inbox(node=self.id, after=after, timeout=_INBOX_BLOCK)
            except Exception as error:  # a node that does not read its inbox is deaf
                if not isinstance(error, StoreUnavailable):
                    log.exception("a bug: the inbox was not read")
                # Redis may come back empty, its clock behind our last ID: begin again.
                after, missed = "0-0", True
                with contextlib.suppress(Exception):
                    await self._store.drop_idle()
                await asyncio.sleep(0.2)
                continue
            if missed:
                missed = False
                self.wake_all()
            for topic in topics:
                self.wake(topic)
