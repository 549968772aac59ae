"""Which addresses belong to proxies of a known kind. Pure: nothing is imported from relay."""

import ipaddress
from functools import lru_cache


def is_within(address: str, networks: str) -> bool:
    """Return whether an IP address lies in one of the networks, which are comma-separated."""
    if not address or not networks:
        return False
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    return any(ip in network for network in _parse(networks))


@lru_cache
def _parse(networks: str) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    return [ipaddress.ip_network(part.strip()) for part in networks.split(",")]
