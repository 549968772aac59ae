"""Drain a node: stop taking work, let waiting clients go, and let streams finish, phase by phase."""

import asyncio
import contextlib
from collections.abc import Callable
from enum import IntEnum
from typing import Protocol

from relay.settings import Settings

#: Seconds between looks at whether the last client has gone.
_LOOK = 0.1


class Phase(IntEnum):
    """How far this node's shutdown has come. Each phase includes those before it."""

    SERVING = 0
    UNREADY = 1  # /readyz answers 503; new work is still taken
    CLOSED = 2  # no new work is taken
    RELEASED = 3  # clients that still wait are told to try again
    CUT = 4  # streams are cut off


class Drained(Protocol):
    """What `drain` needs of a node."""

    settings: Settings

    def advance(self, phase: Phase) -> None: ...
    def is_idle(self) -> bool: ...


async def drain(node: Drained, *, hurry: asyncio.Event) -> None:
    """Take `node` through the phases, each for as long as the settings say or its clients stay.

    Return when the last phase has begun. When `hurry` is set, pass through the rest of the phases at once.
    """
    settings, now = node.settings, asyncio.get_running_loop().time
    end = now() + settings.drain_timeout
    is_alone = not settings.redis_url  # no balancer watches it, and no other node could take its clients
    node.advance(Phase.UNREADY)
    await _pause(0 if is_alone else settings.drain_delay, hurry=hurry, until=lambda: False)
    node.advance(Phase.CLOSED)
    await _pause(0 if is_alone else settings.drain_wait, hurry=hurry, until=node.is_idle)
    node.advance(Phase.RELEASED)
    await _pause(end - now(), hurry=hurry, until=node.is_idle)
    node.advance(Phase.CUT)


async def _pause(seconds: float, *, hurry: asyncio.Event, until: Callable[[], bool]) -> None:
    """Wait for at most `seconds`, but no longer than until `hurry` is set or `until` returns True."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while (left := deadline - loop.time()) > 0 and not hurry.is_set() and not until():
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(_LOOK, left)):
                await hurry.wait()
