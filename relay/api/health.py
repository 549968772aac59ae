"""Handlers for those who ask about the node itself: balancers, orchestrators, operators, browsers and robots."""

from starlette.responses import JSONResponse, Response

from relay import __version__
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


async def version(exchange: Exchange) -> None:
    """Answer with the version of this node."""
    if exchange.wants_json():
        await exchange.answer(JSONResponse({"version": __version__}))
    else:
        await exchange.text(__version__)


async def favicon(exchange: Exchange) -> None:
    """Answer that there is no icon, and need not be asked for again for a day."""
    await exchange.answer(Response(status_code=204, headers={"cache-control": "max-age=86400"}))


async def robots(exchange: Exchange) -> None:
    """Answer that robots are to keep out: their GET would take an upload (RFC 9309)."""
    await exchange.text("User-agent: *\nDisallow: /")


async def not_found(exchange: Exchange) -> None:
    """Answer 404 for a path that browsers and crawlers ask for unasked, and that would pass for a token's."""
    raise Problem(Error.NOT_FOUND)
