"""Handlers for the page: what a browser gets at `/` and `/receive`, and the page's own files."""

from starlette.responses import HTMLResponse, Response

from relay.api import status
from relay.api.exchange import Exchange
from relay.credentials import presented
from relay.errors import Error, Problem
from relay.operations.status_html import as_tables
from relay.page.files import ASSETS, POLICY, RECEIVE, File, send_page

#: A browser asks each time whether its copy is still that of the node, which may have been upgraded meanwhile.
_KEPT = "no-cache"


async def show_home(exchange: Exchange) -> None:
    """Answer a browser with the page that sends files, above the status page's tables; others with the status page."""
    if exchange.wants_json() or not exchange.wants_html():
        await status.show_status(exchange)
        return
    tables, headers = "", status.POLICED
    if not _is_closed(exchange):
        tables, headers = await status.rendered(exchange, as_tables)
    await exchange.answer(HTMLResponse(send_page(tables), headers=headers))


def _is_closed(exchange: Exchange) -> bool:
    """Return whether the tables are left out, because a stranger may send files, but see no status."""
    asks = "admin" in exchange.query or presented(exchange.headers)
    return exchange.relay.settings.status == "private" and not asks


async def show_receive(exchange: Exchange) -> None:
    """Answer with the page that receives a file. Which one is in the address's fragment, which no client sends.

    So curl, given the page's link, must not take the page for the file: raise Problem(BROWSERS_ONLY).
    """
    if not exchange.wants_html():
        raise Problem(Error.BROWSERS_ONLY)
    await _answer_file(exchange, RECEIVE, {"content-security-policy": POLICY})


async def show_asset(exchange: Exchange) -> None:
    """Answer with one of the page's files. Raise Problem(NOT_FOUND)."""
    file = ASSETS.get(exchange.segments[1].decode("latin-1"))
    if file is None:
        raise Problem(Error.NOT_FOUND)
    await _answer_file(exchange, file, {})


async def _answer_file(exchange: Exchange, file: File, headers: dict[str, str]) -> None:
    headers = headers | {"etag": file.etag, "cache-control": _KEPT}
    if exchange.failed_condition(file.etag) == "If-None-Match":
        await exchange.answer(Response(status_code=304, headers=headers))
    else:
        await exchange.answer(Response(file.content, headers=headers, media_type=file.media_type))
