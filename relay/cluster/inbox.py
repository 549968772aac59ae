"""Wake-ups between nodes, and the clients of this node that wait for them.

A wake-up carries only what it is about, and whoever is woken looks into Redis again. A `Meeting` spares an upload that
look, but says nothing that is not in Redis. So a lost wake-up costs time (until the waiting client's own slow check),
and a superfluous one costs a look.
"""

import asyncio
import contextlib
import logging
from collections import defaultdict
from collections.abc import Callable, Sequence

from relay.errors import StoreUnavailable
from relay.listed import Listed
from relay.store.records import Abandoned, Contest, Ended, Farewell, Inquiry, Meeting
from relay.store.store import Store
from relay.tasks import Signal

log = logging.getLogger("relay.nodes")

#: Seconds that one read of the inbox blocks.
_BLOCK = 5.0
#: Seconds after a failed read until the next.
_PAUSE = 0.2


class Listener(Signal):
    """A client of this node that waits for wake-ups about its topics. Its connection calls `set` too, when the client
    leaves.

    It hears of them between `start` and `stop`, which a context manager calls, too.
    """

    __slots__ = ("_listeners", "_topics", "ended", "meeting", "on_set")

    def __init__(self, listeners: "defaultdict[str, set[Listener]]", topics: Sequence[str]) -> None:
        super().__init__()
        #: What the last wake-up said about a download that has joined, if it said something.
        self.meeting: Meeting | None = None
        #: How the transfer ended, if that is known on this node.
        self.ended: Ended | None = None
        #: Called at each wake-up: by then something may wait for it that has not begun to.
        self.on_set: Callable[[], None] | None = None
        self._listeners = listeners
        self._topics = topics

    def set(self) -> None:
        super().set()
        if self.on_set is not None:
            self.on_set()

    def start(self) -> None:
        for topic in self._topics:
            self._listeners[topic].add(self)

    def stop(self, *_: object) -> None:
        self.on_set = None  # which may refer to this listener
        for topic in self._topics:
            self._listeners[topic].discard(self)
            if not self._listeners[topic]:
                del self._listeners[topic]

    __enter__, __exit__ = start, stop


class Inbox:
    """The inbox of one node, and its listeners.

    A topic is the id of a transfer, for both of its sides; the key of a transfer, for downloads that wait for an
    upload; or an `Inquiry`, for an upload whose client may have left.
    """

    def __init__(self, node: str, store: Store) -> None:
        self._node = node
        self._store = store
        self._listeners: defaultdict[str, set[Listener]] = defaultdict(set)
        self._callbacks: dict[str, Callable[[], None]] = {}
        #: By the ids of the downloads that have joined on this node.
        self._contestable: dict[str, Callable[[bool], None]] = {}
        #: Whether wake-ups do not arrive, because the last read failed.
        self.is_deaf = False
        #: Called with an inquiry about an upload that this node does not hold, or that its own node has abandoned.
        self.disown: Callable[[Inquiry], None] = lambda inquiry: None
        #: Called when another node has taken its leave.
        self.on_farewell: Callable[[str], None] = lambda node: None

    def listener(self, *topics: str) -> Listener:
        """Return a listener to wake-ups about any of `topics`, which has not started yet."""
        return Listener(self._listeners, topics)

    def calling(self, topic: str, callback: Callable[[], None]) -> Listed:
        """Call `callback` at each wake-up about `topic`, but not when all are woken: it must not need every one."""
        return Listed(self._callbacks, topic, callback)

    def contestable(self, joiner: str, callback: Callable[[bool], None]) -> Listed:
        """Call `callback` when somebody wants the place of the download `joiner`, with what `Contest.resumes` says."""
        return Listed(self._contestable, joiner, callback)

    def has_listener(self, topic: str) -> bool:
        """Return whether a client of this node listens to `topic`."""
        return topic in self._listeners

    def wake(self, topic: str) -> None:
        """Wake the listeners of this node to `topic`. Disown an upload that is inquired about and is not here."""
        if meeting := Meeting.parse(topic):
            topic = str(meeting.inquiry)
        listeners = self._listeners.get(topic, ())
        for listener in listeners:
            listener.meeting = meeting
            listener.set()
        if (callback := self._callbacks.get(topic)) is not None:
            callback()
        if not listeners:
            self._take(topic)

    def _take(self, topic: str) -> None:
        """Do what a wake-up says that is for no listener, if it says something."""
        if farewell := Farewell.parse(topic):
            self.on_farewell(farewell.node)
        elif abandoned := Abandoned.parse(topic):
            self.disown(Inquiry(*abandoned))
        elif contest := Contest.parse(topic):
            if (callback := self._contestable.get(contest.joiner)) is not None:
                callback(contest.resumes)
        elif (inquiry := Inquiry.parse(topic)) is not None:
            self.disown(inquiry)

    def tell(self, transfer_id: str, ended: Ended) -> None:
        """Tell the listeners of this node to a transfer that it has ended, and how."""
        for listener in self._listeners.get(transfer_id, ()):
            listener.ended = ended
        self.wake(transfer_id)

    def wake_all(self) -> None:
        """Wake every listener of this node: nodes have died, wake-ups may have been lost, or this node drains."""
        for listeners in self._listeners.values():
            for listener in listeners:
                listener.set()

    async def send(self, node: str, topic: str) -> None:
        """Wake the listeners of any node. If that fails, their own slow check makes up for it."""
        if node == self._node:
            self.wake(topic)
        elif node:
            with contextlib.suppress(StoreUnavailable):
                await self._store.nodes.wake(node=node, about=topic)

    async def read_for_ever(self) -> None:
        """Read the inbox, and wake the listeners."""
        after = "0-0"
        while True:
            try:
                after, topics = await self._store.nodes.inbox(node=self._node, after=after, timeout=_BLOCK)
            except Exception as error:  # a node that does not read its inbox is deaf
                if not isinstance(error, StoreUnavailable):
                    log.exception("a bug: the inbox was not read")
                # Redis may come back empty, with its clock behind our last ID: begin again.
                after, self.is_deaf = "0-0", True
                with contextlib.suppress(Exception):
                    await self._store.commands.close_idle()
                await asyncio.sleep(_PAUSE)
                continue
            if self.is_deaf:
                self.is_deaf = False
                self.wake_all()
            for topic in topics:
                self.wake(topic)
