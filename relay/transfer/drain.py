"""Drain a node: stop taking work, let waiting clients go, and let streams finish, phase by phase."""

import asyncio
from collections.abc import Callable
from enum import IntEnum

from relay.errors import Error, Problem
from relay.settings import Settings
from relay.tasks import occurs

#: Seconds between looks at whether the last client has gone.
_LOOK = 0.1


class Phase(IntEnum):
    """How far this node's shutdown has come. Each phase includes those before it."""

    SERVING = 0
    UNREADY = 1  # /readyz answers 503; new work is still taken
    CLOSED = 2  # no new work is taken
    RELEASED = 3  # clients that still wait are told to try again
    CUT = 4  # streams are cut off


class Gate:
    """Lets clients in, counts them, and holds the phase of the shutdown.

    Serve each client within it, as a context manager. It raises Problem(DRAINING) if no new work is taken.
    """

    def __init__(self, *, on_advance: Callable[[], None]) -> None:
        self.phase = Phase.SERVING
        self._on_advance = on_advance
        self._clients = 0

    def __enter__(self) -> None:
        if self.phase >= Phase.CLOSED:
            raise Problem(Error.DRAINING)
        self._clients += 1

    def __exit__(self, *_: object) -> None:
        self._clients -= 1

    def is_idle(self) -> bool:
        """Return whether no client of this node waits or streams."""
        return not self._clients

    def advance(self, phase: Phase) -> None:
        """Enter a phase of the shutdown, unless a later one has begun, and wake all clients that wait."""
        self.phase = max(self.phase, phase)
        self._on_advance()


async def drain(gate: Gate, settings: Settings, *, hurry: asyncio.Event) -> None:
    """Take the node through the phases, each for as long as the settings say or its clients stay.

    Return when the last phase has begun. When `hurry` is set, pass through the rest of the phases at once.
    """
    now = asyncio.get_running_loop().time
    end = now() + settings.drain_timeout
    is_alone = settings.is_alone  # no balancer watches it, and no other node could take its clients
    gate.advance(Phase.UNREADY)
    await _pause(0 if is_alone else settings.drain_delay, hurry=hurry, until=lambda: False)
    gate.advance(Phase.CLOSED)
    await _pause(0 if is_alone else settings.drain_wait, hurry=hurry, until=gate.is_idle)
    gate.advance(Phase.RELEASED)
    await _pause(end - now(), hurry=hurry, until=gate.is_idle)
    gate.advance(Phase.CUT)


async def _pause(seconds: float, *, hurry: asyncio.Event, until: Callable[[], bool]) -> None:
    """Wait for at most `seconds`, but no longer than until `hurry` is set or `until` returns True."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while (left := deadline - loop.time()) > 0 and not hurry.is_set() and not until():
        await occurs(hurry, within=min(_LOOK, left))
