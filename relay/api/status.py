"""Handlers for the operator: what goes on, as a page and as numbers."""

import time
from urllib.parse import parse_qs

from prometheus_client.exposition import choose_encoder
from starlette.responses import HTMLResponse, JSONResponse, Response

from relay.api.exchange import Exchange
from relay.credentials import matches, presented
from relay.errors import Error, Problem
from relay.operations.reports import Reports
from relay.operations.status import OPERATOR, PAGE_POLICY, Viewer, as_html, as_json, as_text
from relay.server.headers import wants_html
from relay.settings import Settings


class Operator:
    """The addresses that tell of the node and its cluster."""

    def __init__(self, settings: Settings, reports: Reports) -> None:
        self._settings = settings
        self._reports = reports

    async def show_status(self, exchange: Exchange) -> None:
        """Active streams and tokens: a page for a browser, JSON on request, else text."""
        viewer = await self._viewer(exchange)
        overview = await self._reports.overview()
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

    async def show_metrics(self, exchange: Exchange) -> None:
        """This node's numbers for Prometheus."""
        await self._viewer(exchange)
        encode, media_type = choose_encoder(exchange.headers.get("accept", ""))
        content = encode(exchange.relay.metrics.registry)
        await exchange.answer(Response(content, headers={"content-type": media_type}))

    async def _viewer(self, exchange: Exchange) -> Viewer:
        """Who asks.

        Raises Problem(TOO_MANY), and Problem(OPERATORS_ONLY), also for `?admin`, by which a browser is made to ask
        its user.
        """
        secret = self._settings.admin_secret
        secrets = presented(exchange.headers)
        if secret and secrets:
            await exchange.relay.refuse_guessers(address=exchange.address)
        if matches(secrets, [secret]):
            return OPERATOR
        asks = "admin" in parse_qs(exchange.scope["query_string"].decode("latin-1"), keep_blank_values=True)
        if self._settings.status == "private" or (secret and (secrets or asks)):
            raise Problem(Error.OPERATORS_ONLY)
        return Viewer(may_sign_in=bool(secret))
