"""Handlers for load balancers and orchestrators: whether this node is alive, and whether it may be sent clients."""

from relay.api.exchange import Exchange
from relay.errors import Error, Problem
from relay.transfer.drain import Phase


async def healthz(exchange: Exchange) -> None:
    """Answer that the process is alive; nothing else is checked."""
    await exchange.text("alive")


async def readyz(exchange: Exchange) -> None:
    """Answer that new clients are welcome. Raise Problem if the node drains or Redis accepts no write."""
    if exchange.relay.gate.phase >= Phase.UNREADY:
        raise Problem(Error.DRAINING)
    await exchange.relay.store.nodes.check(node=exchange.relay.node.id)
    await exchange.text("ready")


async def not_found(exchange: Exchange) -> None:
    """Answer 404 for a path that browsers and crawlers ask for unasked, and that would pass for a token's."""
    raise Problem(Error.NOT_FOUND)
