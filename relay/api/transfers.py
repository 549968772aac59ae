"""Handlers for transfers: upload, download, look at the headers, cancel.

A handler is an async function of an `Exchange`. It parses the request, calls the relay and answers. The `Problem` that
it raises is turned into an answer by `exchange.endpoint`.
"""

import re
from urllib.parse import parse_qs

from starlette.responses import JSONResponse, Response

from relay.api.download_response import ResponseSink, download_headers
from relay.api.exchange import Exchange
from relay.errors import Error, Problem
from relay.server.headers import is_media_type, is_prefetch
from relay.states import Outcome

#: The numbers that `?wait=` takes. float() would also take `1_0`, `nan`, `１` and blanks.
_SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]{0,9})?")


async def upload(exchange: Exchange) -> None:
    """Stream the body to a downloader, and answer with the number of bytes delivered."""
    token, name = exchange.token_and_name()
    headers = exchange.headers
    if "content-range" in headers:
        raise Problem(Error.NO_RANGES, header="Content-Range")
    media_type = headers.get("content-type", "")
    if not is_media_type(media_type):
        raise Problem(Error.BAD_TYPE)
    chunked = "transfer-encoding" in headers  # the server has refused all but `chunked`
    if not chunked and "content-length" not in headers:
        # RFC 9112 section 6.3: such a request has no body. But whoever sent one would be told that 0 bytes arrived.
        raise Problem(Error.NO_LENGTH)
    sent = await exchange.relay.upload(
        token=token,
        name=name,
        length=None if chunked else int(headers["content-length"]),
        media_type=media_type,
        body=exchange.body(),
        client=exchange.client,
    )
    if exchange.wants_json():
        await exchange.answer(JSONResponse({"outcome": Outcome.COMPLETE, "bytes": sent}))
    else:
        await exchange.text(f"delivered {sent} bytes")


async def download(exchange: Exchange) -> None:
    """Answer with the bytes of an upload. Cut the connection if they do not all arrive: nothing else says so."""
    token, name = exchange.token_and_name()
    headers = exchange.headers
    if headers.get("range", "bytes=0-").replace(" ", "").lower() != "bytes=0-":
        raise Problem(Error.NO_RANGES, header="Range")
    if is_prefetch(headers):
        raise Problem(Error.NO_PREFETCH)
    sink = ResponseSink(exchange)
    outcome = await exchange.relay.download(
        token=token, name=name, wait=_wait(exchange), sink=sink, client=exchange.client
    )
    if outcome is not Outcome.COMPLETE:
        await exchange.client.cut()


async def head(exchange: Exchange) -> None:
    """Answer with the headers that a GET would get. This takes nothing, and does not count as a use of the token."""
    token, name = exchange.token_and_name()
    transfer = await exchange.relay.look(token=token, name=name)
    if transfer is None:
        raise Problem(Error.NO_UPLOAD)
    response = Response(headers=download_headers(transfer))
    if transfer.length is None:
        del response.headers["content-length"]
    await exchange.answer(response)


async def cancel(exchange: Exchange) -> None:
    """End the transfer of a name, for both sides."""
    token, name = exchange.token_and_name()
    if not await exchange.relay.cancel(token=token, name=name):
        raise Problem(Error.NO_UPLOAD)
    await exchange.answer(Response(status_code=204))


def _wait(exchange: Exchange) -> float:
    """Return the seconds in `?wait=`, or the default. Raise Problem(BAD_WAIT)."""
    settings = exchange.relay.settings
    values = parse_qs(exchange.scope["query_string"].decode("latin-1"), keep_blank_values=True).get("wait")
    if values is None:
        return settings.download_wait
    wait = float(values[-1]) if _SECONDS.fullmatch(values[-1]) else -1.0
    if not 0 <= wait <= settings.download_wait_max:
        raise Problem(Error.BAD_WAIT, most=settings.download_wait_max)
    return wait
