"""Handlers for operators: what the cluster is doing, as a page, and this node's metrics."""

import time
from typing import Protocol

from prometheus_client.exposition import choose_encoder
from starlette.responses import HTMLResponse, JSONResponse, Response

from relay.api.exchange import Exchange
from relay.credentials import matches, presented
from relay.errors import Error, Problem
from relay.operations.overview import Overview
from relay.operations.status_html import as_html
from relay.operations.status_json import as_json
from relay.operations.status_text import as_text
from relay.operations.viewer import OPERATOR, Viewer
from relay.page.files import POLICY


class Render(Protocol):
    """Makes HTML of what a viewer may see of the cluster."""

    def __call__(self, overview: Overview, viewer: Viewer, *, node: str, clock: str) -> str:
        """Return the HTML."""


async def show_status(exchange: Exchange) -> None:
    """Answer with the active transfers, nodes and tokens: HTML for a browser, JSON if asked for it, else text."""
    if not exchange.wants_json() and exchange.wants_html():
        page = await rendered(exchange, as_html)
        await exchange.answer(HTMLResponse(page, headers={"content-security-policy": POLICY}))
        return
    viewer = await _viewer(exchange)
    overview = await exchange.services.reports.overview()
    if exchange.wants_json():
        await exchange.answer(JSONResponse(as_json(overview, viewer)))
    else:
        await exchange.text(as_text(overview, viewer))


async def rendered(exchange: Exchange, render: Render) -> str:
    """Return the status as HTML for whoever asks. Raise Problem if that is nobody who may see it."""
    viewer = await _viewer(exchange)
    overview = await exchange.services.reports.overview()
    clock = time.strftime("%H:%M:%S", time.gmtime())
    return render(overview, viewer, node=exchange.relay.node.id, clock=clock)


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
