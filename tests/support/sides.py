"""Nodes and clients without processes and sockets: several `Relay`s over one Redis, in one event loop."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

import fakeredis

from relay.clients import Clients
from relay.connection import Connection
from relay.nodes import Node
from relay.service import Relay
from relay.settings import Settings
from relay.store import Store, Transfer
from relay.transfer import ClientGone


def connect(settings: Settings, server: fakeredis.FakeServer) -> Store:
    """A store on `settings.redis_url`, or else on this embedded server, which others may use too."""
    if settings.redis_url:
        return Store.connect(settings)
    return Store(settings, Clients(fakeredis.FakeAsyncRedis(server=server), fakeredis.FakeAsyncRedis(server=server)))


@contextlib.asynccontextmanager
async def serving(settings: Settings, server: fakeredis.FakeServer) -> AsyncIterator[Relay]:
    """A node that beats and reads its inbox."""
    store = connect(settings, server)
    node = Node(settings, store)
    relay = Relay(settings, store, node)
    async with node.running():
        yield relay
        await relay.finish()
    await store.aclose()


async def keys_of_transfers(store: Store) -> list[str]:
    """Keys that only a live transfer, or one that ended a moment ago, may have."""
    raw = store._commands
    kinds = ("transfer", "chunks", "acks")
    return [key.decode() for kind in kinds async for key in raw.scan_iter(match=f"{store.keys.prefix}:{kind}:*")]


class Uploader:
    """A client with a body, whose pieces come one by one, as fast as they are taken."""

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self.pieces = pieces
        self.connection = Connection()

    async def body(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            await asyncio.sleep(0)
            if self.connection.is_lost:
                raise ClientGone
            yield piece


class Downloader:
    """A client that takes what it is given: a `Sink`."""

    def __init__(self) -> None:
        self.connection = Connection()
        self.begun = False
        #: Whether the response was finished, as far as the client can see.
        self.is_complete = False
        self.got = bytearray()

    def check(self, transfer: Transfer) -> None:
        pass

    async def begin(self, transfer: Transfer) -> None:
        self.begun = True

    async def write(self, data: bytes) -> None:
        await asyncio.sleep(0)
        if self.connection.is_lost:
            raise ClientGone
        self.got += data

    async def finish(self, data: bytes) -> None:
        await self.write(data)
        self.is_complete = True

    def progress(self) -> int:
        return len(self.got)
