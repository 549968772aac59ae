"""The connections to Redis: which one a command is sent through.

redis-py's connection pool lends a connection to one command at a time, which caused most of the cost of a small
transfer. Here the commands that neither block nor carry much share one connection to each server.
"""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from itertools import chain
from typing import Any

from redis.exceptions import ConnectionError as RedisConnectionError

from relay.buffers import Blocks
from relay.store.failures import failure_of
from relay.store.redis_py import RedisPy, Server
from relay.store.resp import Command
from relay.store.wire import BLOCK, Connection, connection_over

_REPLACED = "Another server has taken the place of this one"


class Connections:
    """The connections of one process: one to each server that all calls share, and one for each call that needs a
    connection of its own."""

    def __init__(self, redis_py: RedisPy) -> None:
        self._redis_py = redis_py
        self._blocks = Blocks(BLOCK)
        #: Number of calls under way whose replies may be large.
        self._large = 0
        #: By server's name.
        self._shared: dict[str, Connection] = {}
        #: By server's name: the connections that no call uses now.
        self._idle: defaultdict[str, list[Connection]] = defaultdict(list)
        #: By server's name: where the newest connection leads to. Sentinel may replace a master while others are open.
        self._addresses: dict[str, object] = {}
        #: By server's name, so that a server that hangs does not hold up connections to the others.
        self._connecting: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        #: The servers that may no longer have their keys: they were silent, refused a connection, or said so.
        self._doubted: set[str] = set()

    async def share(self, key: str, commands: Sequence[Command]) -> list[Any]:
        """Send commands about one key over the shared connection, and return their replies. None may block.

        A reply that is an error is not raised. Raise what redis-py raises when it connects, and its ConnectionError.
        """
        server = self._redis_py.only or await self._locate(key)
        connection = self._shared.get(server.name)
        if connection is None or not self._is_good(server, connection):
            connection = await self._connect_shared(server)
        replies = await connection.call(commands)
        self._check(server, connection, replies)
        return replies

    async def _locate(self, key: str) -> Server:
        """Return the server of a Redis Cluster that has the key. If it is in doubt, ask the others first which of them
        has it now.

        A master that hangs says nothing of the replica that has taken its place.
        """
        server = await self._redis_py.locate(key)
        if server.name in self._doubted:
            await self._redis_py.find_again(server.name)
            self._doubted.clear()
            server = await self._redis_py.locate(key)
        return server

    async def _connect_shared(self, server: Server) -> Connection:
        async with self._connecting[server.name]:
            connection = self._shared.get(server.name)
            if connection is None or not self._is_good(server, connection):
                connection = self._shared[server.name] = await self._connect(server)
            return connection

    def drop_silent(self, since: float) -> None:
        """Close the shared connections through which nothing has come since then, in the event loop's seconds.

        Their servers are in doubt from now on. So the idle connections are closed, too: a call that took one after the
        other would wait for each of them, and use up its patience.
        """
        for name, connection in self._shared.items():
            if connection.heard < since:
                self._doubted.add(name)
                connection.close()
        for connection in chain(*self._idle.values()):
            if connection.heard < since:
                connection.close()

    async def call(self, key: str, commands: Sequence[Command], *, large: bool = False) -> list[Any]:
        """Send commands about one key over a connection that no other call uses meanwhile, and return their replies.

        So the commands may block, and they and their replies may be large. Errors are as for `share`.
        """
        server = self._redis_py.only or await self._locate(key)
        connection = self._idle_to(server) or await self._connect(server)
        self._large += large
        try:
            replies = await connection.call(commands, large=large)
        except BaseException:
            connection.close()  # its reply may still come, and would be taken for that of the next call
            raise
        finally:
            self._large -= large
            if large:
                self._blocks.trim(users=self._large)
        self._check(server, connection, replies)
        if not connection.is_lost:
            self._idle[server.name].append(connection)
        return replies

    def _is_good(self, server: Server, connection: Connection) -> bool:
        """Return whether a connection is open, and leads to where the newest connection leads to. If not, close it."""
        if connection.address != self._addresses.get(server.name):
            connection.close()
        return not connection.is_lost

    def _check(self, server: Server, connection: Connection, replies: Sequence[Any]) -> None:
        """Close the connection, and doubt its server, after an error that says that another one may have the key: it
        was a master, for example.

        Raise redis-py's ConnectionError if another server has taken its place meanwhile: what this one says is void.
        """
        if connection.address != self._addresses.get(server.name):
            connection.close()
            raise RedisConnectionError(_REPLACED)
        for reply in replies:
            if isinstance(reply, Exception) and failure_of(reply).elsewhere:
                self._doubted.add(server.name)
                connection.close()

    def close_idle(self) -> None:
        """Close the connections that no call uses now, and the shared ones."""
        for connections in (self._shared.values(), *self._idle.values()):
            for connection in connections:
                connection.close()
        self._shared.clear()
        self._idle.clear()

    def _idle_to(self, server: Server) -> Connection | None:
        connections = self._idle[server.name]
        while connections:
            if self._is_good(server, connection := connections.pop()):
                return connection
        return None

    async def _connect(self, server: Server) -> Connection:
        try:
            link = await server.connect()
        except BaseException:  # also when its time is over, because a server that hangs accepts connections
            self._doubted.add(server.name)
            raise
        self._addresses[server.name] = link.address
        return connection_over(link, self._blocks)
