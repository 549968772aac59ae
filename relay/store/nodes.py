"""The verbs about nodes: heartbeats, and the inboxes through which nodes wake each other."""

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any

from relay.errors import StoreUnavailable
from relay.store.commands import Commands, ms, result
from relay.tasks import mark_retrieved

#: Maximum entries of an inbox: more than wake-ups can pile up between two reads.
_INBOX_MAX = 100_000
#: Milliseconds that an inbox lives after the last wake-up.
_INBOX_TTL = 60_000
#: Seconds that the list of nodes lives after the last heartbeat.
_NODES_TTL = 3600.0


def wake_up(about: str) -> list[str | int]:
    """Return the arguments of the script `wake`."""
    return [about, _INBOX_MAX, _INBOX_TTL]


class Nodes:
    """Sign nodes in and out, and wake them."""

    def __init__(self, commands: Commands) -> None:
        self._commands = commands
        self._keys = commands.keys
        self._checking: asyncio.Task[Any] | None = None

    async def beat(self, *, node: str, facts: Mapping[str, str | int]) -> dict[str, float]:
        """Record that a node is alive, with `facts` about it. Return each known node's seconds since its heartbeat."""
        settings = self._commands.settings
        sign: list[str | int] = [ms(3 * settings.heartbeat), *(part for pair in facts.items() for part in pair)]
        roll: list[str | int] = [node, ms(10 * settings.node_death), ms(_NODES_TTL)]
        now, ages = await self._run_apart("roll", self._keys.nodes, roll)
        await self._commands.learn_time(self._keys.nodes, int(now))
        with contextlib.suppress(StoreUnavailable):  # its server may be away: without the facts it is alive, too
            await self._run_apart("beat", self._keys.node(node), sign)
        return {
            other.decode(errors="replace"): int(age) / 1000 for other, age in zip(ages[::2], ages[1::2], strict=True)
        }

    async def is_beating(self, *, node: str) -> bool:
        """Return whether a node has sent a heartbeat lately. Ask this for a node that is not on our list yet."""
        return (await self._commands.ask(("EXISTS", self._keys.node(node)))) == [1]

    async def sign_off(self, *, node: str) -> None:
        """Remove a node that shuts down from the list, and delete its keys."""
        await self._commands.ask(("ZREM", self._keys.nodes, node))
        own = (self._keys.node, self._keys.inbox, self._keys.uploads, self._keys.downloads)
        for key in (key(node) for key in own):  # each in its own slot
            await self._commands.ask(("UNLINK", key))

    async def wake(self, *, node: str, about: str) -> None:
        """Put a wake-up into the inbox of a node, for the listeners to `about`."""
        await self._commands.run("wake", [self._keys.inbox(node)], wake_up(about))

    async def check(self, *, node: str) -> None:
        """Raise StoreUnavailable unless Redis carries out a write. All who ask at the same time share the reply: it
        takes a connection, and anybody may ask."""
        if self._checking is None or self._checking.done():
            self._checking = asyncio.create_task(self._run_apart("wake", self._keys.inbox(node), wake_up("check")))
            self._checking.add_done_callback(mark_retrieved)  # if all have left who asked
        await asyncio.shield(self._checking)

    async def _run_apart(self, verb: str, key: str, arguments: list[str | int]) -> Any:
        """Run a verb over a connection of its own: a node must not seem dead because it has many clients."""
        return await self._commands.repeat(
            lambda: self._commands.evaluate(verb, [key], arguments, self._commands.connections.call),
            patience=self._commands.settings.redis_patience,
        )

    async def inbox(self, *, node: str, after: str, timeout: float) -> tuple[str, list[str]]:
        """Wait up to `timeout` seconds for wake-ups after the entry ID `after`, and trim those before it.

        Return the last ID, and what each wake-up is about. Raise StoreUnavailable at the first failure.
        """
        key = self._keys.inbox(node)
        trim = ("XTRIM", key, "MINID", "=", after)
        wait = ("XREAD", "COUNT", 1000, "BLOCK", ms(timeout), "STREAMS", key, after)

        async def read() -> Any:
            return result((await self._commands.connections.call(key, [trim, wait]))[1])

        reply = await self._commands.repeat(read, patience=0, blocks=timeout)
        if not reply:
            return after, []
        entries = reply[0][1]
        return entries[-1][0].decode(), [about.decode(errors="replace") for _, (_, about) in entries]
