"""What the Redis servers say of themselves."""

from dataclasses import dataclass
from typing import Any

from redis.exceptions import ResponseError

from relay.store.commands import Commands
from relay.store.failures import RAISED
from relay.store.redis_py import COMMAND_TIMEOUT
from relay.tasks import Limit

#: The oldest version of Redis that has all commands that a node needs.
OLDEST = (6, 2)


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What one server says of itself."""

    #: The version of Redis whose commands it has, and its name and own version to be shown.
    version: tuple[int, ...]
    shown: str
    #: What it does when its memory is full.
    policy: str
    #: The bytes of memory that it uses, and the maximum; 0: unlimited.
    used: int = 0
    most: int = 0

    @property
    def evicts(self) -> bool:
        """Whether it throws keys away when its memory is full. Every key of relay has a TTL, so volatile-* does too."""
        return self.policy not in ("", "noeviction")

    @property
    def share(self) -> float | None:
        """How full it is, from 0 to 1; None if its memory is unlimited."""
        return min(1.0, self.used / self.most) if self.most else None


class Servers:
    """Ask the servers about themselves."""

    def __init__(self, commands: Commands) -> None:
        self._commands = commands

    async def facts(self) -> list[ServerFacts] | None:
        """Return what each master says of itself; None if it is not to be had: a store in this process, no right to
        INFO, or Redis is away."""
        if self._commands.is_embedded:
            return None
        try:
            with Limit(COMMAND_TIMEOUT):
                return [facts_of(info) for info in await self._commands.info()]
        except (ResponseError, *RAISED):
            return None


def facts_of(info: dict[str, Any]) -> ServerFacts:
    """Return the facts in the reply to INFO."""
    version = str(info.get("redis_version", "0"))
    shown = f"Valkey {info['valkey_version']}" if "valkey_version" in info else f"Redis {version}"
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
    return ServerFacts(
        numbers, shown, str(info.get("maxmemory_policy", "")), _number(info, "used_memory"), _number(info, "maxmemory")
    )


def _number(info: dict[str, Any], name: str) -> int:
    """Return a number of INFO, 0 if it is missing, as it may be of a server that only speaks Redis's protocol."""
    try:
        return int(info.get(name, 0))
    except (TypeError, ValueError):
        return 0
