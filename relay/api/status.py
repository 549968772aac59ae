"""Handlers for operators: what the cluster is doing, as a page, and this node's metrics."""

import time

from prometheus_client.exposition import choose_encoder
from starlette.responses import HTMLResponse, JSONResponse, Response

from relay.api.exchange import Exchange
from relay.credentials import matches, presented
from relay.errors import Error, Problem
from relay.operations.status_html import PAGE_POLICY, as_html
from relay.operations.status_json import as_json
from relay.operations.status_text import as_text
from relay.operations.viewer import OPERATOR, Viewer
from relay.server.headers import wants_html


async def show_status(exchange: Exchange) -> None:
    """Answer with the active transfers, nodes and tokens: HTML for a browser, JSON if asked for it, else text."""
    viewer = await _viewer(exchange)
    overview = await exchange.services.reports.overview()
    response: Response
    if exchange.wants_json():
        response = JSONResponse(as_json(overview, viewer))
    elif wants_html(",".join(exchange.headers.getlist("accept"))):
        clock = time.strftime("%H:%M:%S", time.gmtime())
        page = as_html(overview, viewer, node=exchange.relay.node.id, clock=clock)
        response = HTMLResponse(page, headers={"content-security-policy": PAGE_POLICY})
    else:
        await exchange.text(as_text(overview, viewer))
        return
    await exchange.answer(response)


async def show_metrics(exchange: Exchange) -> None:
    """Answer with this node's metrics, for Prometheus."""
    viewer, metrics = await _viewer(exchange), exchange.services.metrics
    encode, media_type = choose_encoder(exchange.headers.get("accept", ""))
    content = encode(metrics.everything if viewer == OPERATOR else metrics.registry)
    await exchange.answer(Response(content, headers={"content-type": media_type}))


async def _viewer(exchange: Exchange) -> Viewer:
    """Return what this client may see.

    Raise Problem(TOO_MANY) if its address has guessed too often, and Problem(OPERATORS_ONLY) if its secret is wrong
    or missing. `?admin` counts as a missing secret, because the 401 makes a browser ask its user for the password.
    """
    settings = exchange.relay.settings
    secret = settings.admin_secret
    secrets = presented(exchange.headers)
    if secret and secrets:
        await exchange.services.admission.refuse_guessers(address=exchange.address)
    if matches(secrets, [secret]):
        return OPERATOR
    asks = "admin" in exchange.query
    if settings.status == "private" or (secret and (secrets or asks)):
        raise Problem(Error.OPERATORS_ONLY)
    return Viewer(may_sign_in=bool(secret))
