"""Nodes and clients without processes or sockets: several `Relay`s over one Redis, in one event loop."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any, Self

import fakeredis

from relay.cluster.node import Node
from relay.errors import ClientGone
from relay.metrics import Metrics
from relay.server.connection import Connection
from relay.settings import Settings
from relay.store.records import Transfer
from relay.store.redis_py import RedisPy
from relay.store.store import Store
from relay.tasks import stop
from relay.transfer.relay import Relay


def connect(settings: Settings, server: fakeredis.FakeServer) -> Store:
    """Return a store on `settings.redis_url`, or, if that is empty, on this embedded server, which stores may share."""
    if settings.redis_url:
        return Store.connect(settings)
    return Store(settings, Metrics(), RedisPy.embedded(server))


@contextlib.asynccontextmanager
async def serving(settings: Settings, server: fakeredis.FakeServer) -> AsyncIterator[Relay]:
    """Run a node that sends heartbeats and reads its inbox."""
    store = connect(settings, server)
    node = Node(settings, store)
    relay = Relay(settings, store, Metrics(), node)
    async with node.running():
        yield relay
        await relay.context.background.wait()
    await store.aclose()


class Hosted:
    """A node that can be stopped or killed."""

    def __init__(self, settings: Settings, server: fakeredis.FakeServer) -> None:
        self.relay: Relay
        self._started, self._stopped = asyncio.Event(), asyncio.Event()
        self._task = asyncio.create_task(self._serve(settings, server))

    async def _serve(self, settings: Settings, server: fakeredis.FakeServer) -> None:
        async with serving(settings, server) as self.relay:
            self._started.set()
            await self._stopped.wait()

    @property
    def id(self) -> str:
        return self.relay.node.id

    async def started(self) -> Self:
        await self._started.wait()
        return self

    async def stop(self) -> None:
        self._stopped.set()
        await self._task

    async def kill(self, sides: Sequence["asyncio.Task[Any]"]) -> None:
        """Stop the node and the tasks of its clients without sending another command to Redis."""

        async def never(*_: object, **__: object) -> None:
            await asyncio.Event().wait()

        self.relay.store.commands.repeat = never  # type: ignore[method-assign, assignment]
        await stop([*sides, self._task])
        await stop(self.relay.context.background._tasks)
        await self.relay.store.aclose()


async def keys_of_transfers(store: Store) -> list[str]:
    """Return the keys that only a live transfer, or one that has just ended, may have."""
    raw = store.commands.redis
    kinds = ("transfer", "chunks", "acks")
    return [key.decode() for kind in kinds async for key in raw.scan_iter(match=f"{store.keys.prefix}:{kind}:*")]


class Uploader:
    """A client that uploads the given pieces. If `is_open`, its body goes on with the pieces of `send` until `end`."""

    def __init__(self, pieces: Sequence[bytes] = (), *, is_open: bool = False) -> None:
        self.connection = Connection()
        self.content = b""
        self._pieces: asyncio.Queue[bytes | None] = asyncio.Queue()
        for piece in pieces:
            self.send(piece)
        if not is_open:
            self.end()

    def send(self, piece: bytes) -> None:
        self.content += piece
        self._pieces.put_nowait(piece)

    def end(self) -> None:
        """End the body: it is complete."""
        self._pieces.put_nowait(None)

    def leave(self) -> None:
        self.connection.lost(None)
        self._pieces.put_nowait(b"")

    async def body(self) -> AsyncIterator[bytes]:
        await asyncio.sleep(0)
        while (piece := await self._pieces.get()) is not None:
            if self.connection.is_lost:
                raise ClientGone
            yield piece


class Downloader:
    """A client that downloads: a `Sink` that takes every byte it is given, unless it is paused (`takes`)."""

    def __init__(self, start: int = 0) -> None:
        self.connection = Connection()
        #: The byte offset from which on it wants the file.
        self.start = start
        self.begun = False
        #: Whether the client has seen the end of the response.
        self.is_complete = False
        #: Whether it is being sent something and does not take it.
        self.is_blocked = False
        self.got = b""
        self.takes = asyncio.Event()
        self.takes.set()

    def leave(self) -> None:
        self.connection.lost(None)
        self.takes.set()  # a write to a lost connection does not block

    def start_of(self, transfer: Transfer) -> int:
        return self.start

    async def begin(self, transfer: Transfer, *, at_end: bool = False) -> None:
        self.begun = True

    async def write(self, data: bytes | memoryview) -> None:
        await asyncio.sleep(0)
        self.is_blocked = not self.takes.is_set()
        await self.takes.wait()
        self.is_blocked = False
        if self.connection.is_lost:
            raise ClientGone
        self.got += data

    def can_take(self, data: bytes | memoryview) -> bool:
        return True

    async def catch_up(self) -> None:
        await self.takes.wait()

    async def complete(self, data: bytes | memoryview) -> None:
        await self.write(data)
        self.is_complete = True

    def progress(self) -> int:
        return len(self.got)
