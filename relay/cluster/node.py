"""This node: its heartbeat, and its view of which nodes are alive."""

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import AsyncIterator, Set

from relay.cluster.inbox import Inbox
from relay.cluster.load import Load
from relay.cluster.membership import Membership
from relay.errors import StoreUnavailable
from relay.settings import Settings
from relay.states import State
from relay.store.records import Farewell
from relay.store.store import Store
from relay.tasks import stop

log = logging.getLogger("relay.nodes")

#: Seconds between looks into Redis for a client that waits, in case its wake-up was lost.
RECHECK = 30.0
#: The same while no wake-ups arrive: of a Redis Cluster, the server with the inbox may be away, and the others not.
_RECHECK_DEAF = 2.0
#: Seconds between the rounds that look for waiting uploads, and the maximum uploads of one round trip.
_ROUND, _BATCH = 1.0, 100


class Node:
    """This node. A process has one. Wrap the server's life in `running`."""

    def __init__(self, settings: Settings, store: Store) -> None:
        #: A node that is restarted under its name gets another id: it holds none of the old node's clients.
        self.id = f"{settings.node}-{secrets.token_hex(3)}"
        self.load = Load()
        self.inbox = Inbox(self.id, store)
        self._settings = settings
        self._store = store
        self._membership = Membership(self.id, death=settings.node_death, heartbeat=settings.heartbeat)
        self.inbox.on_farewell = self._on_farewell

    @property
    def alive(self) -> Set[str]:
        """The nodes that are alive, as of the last heartbeat."""
        return self._membership.alive

    @property
    def recheck_after(self) -> float:
        """Seconds after which a client that waits looks into Redis, even if nothing has woken it."""
        return _RECHECK_DEAF if self.inbox.is_deaf else RECHECK

    async def is_alive(self, node: str) -> bool:
        """Return whether `node` is alive. Ask Redis only about a node that is not on the list: it may be new.

        If Redis does not answer, or has only just come back, no node is considered dead.
        """
        if node in self._membership.alive or not self._membership.is_steady(time.monotonic()):
            return True
        try:
            return await self._store.nodes.is_beating(node=node)
        except StoreUnavailable:
            return True

    def has_beaten_since(self, node: str, then: float) -> bool:
        """Return whether `node` has sent a heartbeat since `then`, in monotonic seconds. This node is always there."""
        return node == self.id or self._membership.last_seen(node) > then

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Send heartbeats, read the inbox, and look for waiting uploads. Sign off at the end."""
        with contextlib.suppress(StoreUnavailable):
            await self._beat()
        loops = (self._beat_for_ever(), self.inbox.read_for_ever(), self._recheck_for_ever())
        tasks = [asyncio.create_task(loop) for loop in loops]
        try:
            yield
        finally:
            await stop(tasks)
            with contextlib.suppress(StoreUnavailable):
                await self._leave()

    def drain(self) -> None:
        """Say with every heartbeat from now on that this node shuts down, and wake all clients that wait."""
        self.load.is_draining = True
        self.inbox.wake_all()

    async def _leave(self) -> None:
        """Take leave of the nodes that are alive now: others may have come since the last heartbeat."""
        await self._beat()
        await self._store.nodes.sign_off(node=self.id)
        for other in self.alive - {self.id}:
            await self.inbox.send(other, str(Farewell(self.id)))

    def _on_farewell(self, node: str) -> None:
        if node in self._membership.alive:
            log.info("node left: %s", node)
        self._membership.remove(node)
        self.inbox.wake_all()  # a side whose other side was on that node has to notice

    async def _beat(self) -> None:
        ages = await self._store.nodes.beat(node=self.id, facts=self.load.facts())
        if lost := self._membership.update(ages, time.monotonic()):
            log.warning("nodes lost: %s", " ".join(sorted(lost)))
            self.inbox.wake_all()

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
            except Exception:  # a node without a heartbeat is considered dead, with all its clients
                log.exception("a bug: this heartbeat failed")
            await asyncio.sleep(self._settings.heartbeat)

    async def _recheck_for_ever(self) -> None:
        while True:
            await asyncio.sleep(_ROUND)
            try:
                await self.recheck(time.monotonic())
            except StoreUnavailable:
                pass  # the heartbeat's loop logs it
            except Exception:
                log.exception("a bug: the waiting uploads were not checked")

    async def recheck(self, now: float) -> None:
        """Wake the waiting uploads about which Redis has news; `now` is in monotonic seconds. Raise StoreUnavailable.

        There are many such uploads and hardly ever any news, so one round trip checks a hundred of them.
        """
        after = self.recheck_after
        due = [upload for upload in self.load.uploads[State.WAITING] if now - upload.looked >= after]
        for start in range(0, len(due), _BATCH):
            batch = due[start : start + _BATCH]
            for upload in batch:
                upload.looked = now
            for transfer in await self._store.transfers.no_longer_waiting([upload.transfer for upload in batch]):
                self.inbox.wake(transfer.id)
