"""Handlers for operators: what the cluster is doing, as a page, and this node's metrics."""

import time
from collections.abc import Mapping
from typing import Protocol
from urllib.parse import parse_qs, urlsplit

from prometheus_client.exposition import choose_encoder
from starlette.responses import HTMLResponse, JSONResponse, Response

from relay.access import Access
from relay.api.exchange import Exchange
from relay.credentials import matches, presented
from relay.errors import Error, Problem
from relay.logs import audit, note
from relay.operations.cancelling import Offer
from relay.operations.overview import Overview
from relay.operations.status_html import as_html, sure_page
from relay.operations.status_json import as_json
from relay.operations.status_text import as_text
from relay.operations.viewer import Viewer
from relay.page.files import OPERATORS_POLICY, POLICY

#: Maximum bytes of a form. A name has up to 255 bytes, each of which takes up to five characters in a form.
_FORM_MOST = 4096
#: The headers of a page with forms. Under `no-referrer`, which all other answers have, browsers would say
#: `Origin: null` of our own forms, too.
_OWN_FORMS: Mapping[str, str] = {"content-security-policy": OPERATORS_POLICY, "referrer-policy": "same-origin"}

#: The headers of a page without them.
POLICED: Mapping[str, str] = {"content-security-policy": POLICY}


class Render(Protocol):
    """Makes HTML of what a viewer may see of the cluster."""

    def __call__(self, overview: Overview, viewer: Viewer, *, node: str, clock: str) -> str:
        """Return the HTML."""


async def show_status(exchange: Exchange) -> None:
    """Answer with the active transfers, nodes and tokens: HTML for a browser, JSON if asked for it, else text."""
    if not exchange.wants_json() and exchange.wants_html():
        page, headers = await rendered(exchange, as_html)
        await exchange.answer(HTMLResponse(page, headers=headers))
        return
    viewer = await _viewer(exchange)
    overview = await exchange.services.reports.overview()
    if exchange.wants_json():
        await exchange.answer(JSONResponse(as_json(overview, viewer)))
    else:
        await exchange.text(as_text(overview, viewer))


async def rendered(exchange: Exchange, render: Render) -> tuple[str, Mapping[str, str]]:
    """Return the status as HTML for whoever asks, and the headers of a page with it.

    Raise Problem if that is nobody who may see it.
    """
    viewer = await _viewer(exchange)
    overview = await exchange.services.reports.overview()
    clock = time.strftime("%H:%M:%S", time.gmtime())
    page = render(overview, viewer, node=exchange.relay.node.id, clock=clock)
    return page, _OWN_FORMS if viewer.key else POLICED


async def cancel(exchange: Exchange) -> None:
    """Cancel a transfer that an operator's page has offered to cancel; with HTML asked for, ask first whether to do so.

    Raise Problem(NOT_OFFERED) for a request that another site's page may have made the operator's browser send.
    """
    viewer = await _viewer(exchange)
    if not viewer.key:
        raise Problem(Error.OPERATORS_ONLY)
    form = await _form(exchange)
    which = form.get("which", "")
    offer = Offer.parse(which, viewer.key)
    if offer is None or not _is_own(exchange.headers):
        raise Problem(Error.NOT_OFFERED)
    if form.get("sure") != "yes":
        await exchange.answer(HTMLResponse(sure_page(offer, which), headers=_OWN_FORMS))
        return
    note(transfer=offer.transfer_id)
    access = Access.of_operator(offer.token)
    if not await exchange.relay.cancel(access, name=offer.name, transfer_id=offer.transfer_id):
        raise Problem(Error.NO_UPLOAD)
    audit("cancelled", token=offer.token, name=offer.name, by="operator")
    if exchange.wants_html():  # the address is relative, because a balancer may have removed a prefix
        await exchange.answer(Response(status_code=303, headers={"location": "../status?admin"}))
    else:
        await exchange.text(f"cancelled {offer.token} {offer.name}")


async def _form(exchange: Exchange) -> dict[str, str]:
    """Return the fields of a form. Raise Problem(NOT_OFFERED) if it is longer than any of ours."""
    data = b""
    async for piece in exchange.body():
        data += piece
        if len(data) > _FORM_MOST:
            raise Problem(Error.NOT_OFFERED)
    return {name: values[-1] for name, values in parse_qs(data.decode("latin-1")).items()}


def _is_own(headers: Mapping[str, str]) -> bool:
    """Return whether a request does not come from another site's page, as far as its browser says.

    `Sec-Fetch-Site` is of W3C's Fetch Metadata. Browsers send it over HTTPS only, and `Origin` with every POST.
    """
    if site := headers.get("sec-fetch-site"):
        return site == "same-origin"
    origin = headers.get("origin")
    return origin is None or urlsplit(origin).netloc.lower() == headers.get("host", "").lower()


async def show_metrics(exchange: Exchange) -> None:
    """Answer with this node's metrics, for Prometheus."""
    viewer, metrics = await _viewer(exchange), exchange.services.metrics
    encode, media_type = choose_encoder(exchange.headers.get("accept", ""))
    content = encode(metrics.everything if viewer.names else metrics.registry)
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
        return Viewer(names=True, key=secret)
    asks = "admin" in exchange.query
    if settings.status == "private" or (secret and (secrets or asks)):
        raise Problem(Error.OPERATORS_ONLY)
    return Viewer(may_sign_in=bool(secret))
