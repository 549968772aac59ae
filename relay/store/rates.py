"""How often an address may do something: counted by the library `limits`, in Redis, and so by all nodes together."""

import ipaddress
import time
from enum import StrEnum
from typing import Any

from limits import RateLimitItem, parse
from limits.aio.storage import RedisStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter

from relay.store.commands import Commands

#: What one customer of a provider has, mostly, of IPv6: to count single addresses would be to count nothing.
_IPV6_NETWORK = 64


class Rate(StrEnum):
    """What is counted."""

    TOKENS = "tokens"
    FAILURES = "failures"


class Counters(RedisStorage):
    """`limits`' counters in Redis, through a client that is there already, whatever RELAY_REDIS_URL it is for."""

    STORAGE_SCHEME = ["relay"]  # noqa: RUF012 (as in the base class); theirs would be taken from it in their register

    def __init__(self, client: Any, key_prefix: str) -> None:
        self._client = client
        super().__init__("redis://", implementation="redispy", key_prefix=key_prefix)

    def configure_bridge(self) -> None:
        bridge: Any = self.bridge
        bridge.storage = self._client
        bridge.connection_getter = lambda readonly: self._client


def parse_rate(text: str) -> RateLimitItem | None:
    """`600/minute`, `10 per 2 hours`; None for no limit.  Raises ValueError."""
    return parse(text) if text else None


def counted_as(address: str) -> str:
    """The address under which a client is counted: its own, or of IPv6 its /64 network.

    What is no address (a proxy may forward anything) is counted as one.
    """
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return "unknown"
    if isinstance(ip, ipaddress.IPv4Address):
        return str(ip)
    if ip.ipv4_mapped is not None:  # as a socket that serves both families shows IPv4
        return str(ip.ipv4_mapped)
    return str(ipaddress.ip_network((ip, _IPV6_NETWORK), strict=False))


class Rates:
    """Count what an address does, and say when it has done too much."""

    def __init__(self, commands: Commands) -> None:
        self._commands = commands
        self._limiter = SlidingWindowCounterRateLimiter(Counters(commands.redis, commands.keys.rate))

    async def spend(self, what: Rate, limit: RateLimitItem, *, address: str) -> float:
        """Count one for an address, and return 0. If it is over its limit, count nothing and return the seconds to
        wait."""
        if await self._commands.call(lambda: self._limiter.hit(limit, what, address)):
            return 0.0
        return await self._seconds_to_wait(what, limit, address)

    async def is_spent(self, what: Rate, limit: RateLimitItem, *, address: str) -> float:
        """Return the seconds that an address has to wait; 0 if it is below its limit. Count nothing."""
        if await self._commands.call(lambda: self._limiter.test(limit, what, address)):
            return 0.0
        return await self._seconds_to_wait(what, limit, address)

    async def _seconds_to_wait(self, what: Rate, limit: RateLimitItem, address: str) -> float:
        window = await self._commands.call(lambda: self._limiter.get_window_stats(limit, what, address))
        return max(1.0, window.reset_time - time.time())
