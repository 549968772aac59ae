"""TODO."""

from starlette.responses import JSONResponse

from relay.api.exchange import Exchange
from relay.api.openapi import document
from relay.errors import Error, Problem
from relay.transfer.drain import Phase


async def healthz(exchange: Exchange) -> None:
    await exchange.text("alive")


async def readyz(exchange: Exchange) -> None:
    if exchange.relay.gate.phase >= Phase.UNREADY:
        raise Problem(Error.DRAINING)
    await exchange.relay.store.nodes.check(node=exchange.relay.node.id)
    await exchange.text("ready")


async def openapi(exchange: Exchange) -> None:
    await exchange.answer(JSONResponse(document(exchange.relay.settings)))


async def not_found(exchange: Exchange) -> None:
    raise Problem(Error.NOT_FOUND)
