"""This node among the others: its heartbeat, who else is alive, and the inbox through which others wake it.

A wake-up carries no state, only what it is about: whoever listens looks into Redis again.  So one that is lost
costs time (the listener's own slow re-check) and nothing else, and one too many costs a look.
"""

import asyncio
import contextlib
import logging
import socket
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping

from relay import __version__
from relay.errors import StoreUnavailable
from relay.settings import Settings
from relay.states import Outcome, State
from relay.store import Store
from relay.tasks import stop

log = logging.getLogger("relay.nodes")

#: Seconds one read of the inbox blocks.
_INBOX_BLOCK = 5.0


def dead(ages: Mapping[str, float], *, death: float, gap: float, heartbeat: float) -> set[str]:
    """The nodes whose last sign of life is more than `death` seconds ago.

    `gap`: seconds since we ourselves last got through.  If that was more than two beats, Redis was away for
    all, and nobody is dead for not having reached it: the next roll will tell.
    """
    if gap > 2 * heartbeat:
        return set()
    return {node for node, age in ages.items() if age > death}


class Listener:
    """Somebody who waits for wake-ups.  `set` is also what a connection calls when its client leaves."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def set(self) -> None:
        self._event.set()

    async def wait(self, timeout: float) -> bool:
        """Waits for a wake-up for up to `timeout` seconds; False if none came.  Takes the wake-up."""
        try:
            async with asyncio.timeout(max(0.0, timeout)):
                await self._event.wait()
        except TimeoutError:
            return False
        self._event.clear()
        return True


class Node:
    """Heartbeat, roll and inbox of this process.  Use `running` around the server's life."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self.id = settings.node
        self.counts: Counter[Outcome] = Counter()
        self.holding: Counter[State] = Counter()
        self._settings = settings
        self._store = store
        self._started = int(time.time())
        self._listeners: dict[str, set[Listener]] = defaultdict(set)
        self._alive = {self.id}
        self._last_roll: float | None = None

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
        """Wakes the listeners of this node."""
        for listener in self._listeners.get(topic, ()):
            listener.set()

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
        if node in self._alive or not self._is_steady():
            return True
        try:
            return await self._store.is_beating(node=node)
        except StoreUnavailable:
            return True

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Beats and reads the inbox; signs off at the end."""
        with contextlib.suppress(StoreUnavailable):
            await self._roll()
        tasks = [asyncio.create_task(self._beat_for_ever()), asyncio.create_task(self._read_for_ever())]
        try:
            yield
        finally:
            await stop(tasks)
            with contextlib.suppress(StoreUnavailable):
                await self._store.sign_off(node=self.id)

    def _is_steady(self) -> bool:
        """Whether we got through to Redis lately, so that another's silence is its own."""
        if self._last_roll is None:
            return False
        return time.monotonic() - self._last_roll <= 2 * self._settings.heartbeat

    def _facts(self) -> dict[str, str | int]:
        return {
            "host": socket.gethostname(),
            "version": __version__,
            "started": self._started,
            **{state: self.holding[state] for state in (State.WAITING, State.STREAMING)},
            **{outcome: self.counts[outcome] for outcome in Outcome},
        }

    async def _roll(self) -> None:
        ages = await self._store.beat(node=self.id, facts=self._facts())
        now = time.monotonic()
        gap = now - self._last_roll if self._last_roll is not None else float("inf")
        self._last_roll = now
        gone = dead(ages, death=self._settings.node_death, gap=gap, heartbeat=self._settings.heartbeat)
        alive = (set(ages) - gone) | {self.id}
        lost, self._alive = self._alive - alive, alive
        if lost:
            log.warning("nodes lost: %s", " ".join(sorted(lost)))
            self.wake_all()

    async def _beat_for_ever(self) -> None:
        reachable = True
        while True:
            try:
                await self._roll()
                if not reachable:
                    log.warning("Redis answers again")
                reachable = True
            except StoreUnavailable:
                if reachable:
                    log.error("Redis does not answer: new requests get 503 until it does")
                reachable = False
            await asyncio.sleep(self._settings.heartbeat)

    async def _read_for_ever(self) -> None:
        after, missed = "0-0", False
        while True:
            try:
                after, topics = await self._store.inbox(node=self.id, after=after, timeout=_INBOX_BLOCK)
            except StoreUnavailable:
                # Redis may come back empty, its clock behind our last ID: begin again.
                after, missed = "0-0", True
                await asyncio.sleep(0.2)
                continue
            if missed:
                missed = False
                self.wake_all()
            for topic in topics:
                self.wake(topic)
