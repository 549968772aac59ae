"""How often an address has done something lately: counted in Redis, so for all nodes together."""

import functools
import ipaddress
from enum import StrEnum

from relay.rates import Rate
from relay.store.commands import Commands, ms

#: Length of the IPv6 prefix that is counted as one address: most providers give each customer a /64, so counting
#: single addresses would limit nobody.
_IPV6_NETWORK = 64
#: Maximum number of addresses of which it is remembered how they are counted: every log line of a request has that.
_REMEMBERED = 1024


class Counted(StrEnum):
    """What is counted for each address: tokens made, and refusals of wrong tokens and secrets; and for the name of each
    secret: tokens made with it."""

    TOKENS = "tokens"
    FAILURES = "failures"
    SECRETS = "secrets"


@functools.lru_cache(maxsize=_REMEMBERED)
def counted_as(address: str) -> str:
    """Return the address under which a client is counted: its own, or the /64 network of an IPv6 address.

    All texts that are no address (a proxy may forward anything) are counted together.
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
        self._keys = commands.keys

    async def spend(self, what: Counted, rate: Rate, *, address: str) -> float:
        """Count one for an address, and return 0. If it has reached the rate, count nothing and return the seconds to
        wait, at least 1."""
        return await self._spend(what, rate, address, counts=True)

    async def is_spent(self, what: Counted, rate: Rate, *, address: str) -> float:
        """Return the seconds that an address has to wait; 0 if it has not reached the rate. Count nothing."""
        return await self._spend(what, rate, address, counts=False)

    async def _spend(self, what: Counted, rate: Rate, address: str, *, counts: bool) -> float:
        arguments = [rate.most, ms(rate.seconds), int(counts)]
        wait = int(await self._commands.run("spend", [self._keys.rate(what, address)], arguments))
        return max(1.0, wait / 1000) if wait else 0.0
