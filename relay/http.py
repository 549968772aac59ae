"""Thin handlers: parse, call, answer.  The addresses are in `app`.

A handler is an async function of an `Exchange`; whatever `Problem` it raises is rendered in `exchange.endpoint`.
"""

import re
from urllib.parse import parse_qs

from starlette.responses import JSONResponse, Response

from relay.credentials import presented
from relay.errors import Error, Problem
from relay.exchange import Exchange
from relay.headers import is_media_type, is_prefetch
from relay.openapi import document
from relay.response import ResponseSink, download_headers
from relay.states import Outcome
from relay.transfer import transfers_in
from relay.work import Phase

#: What `?wait=` takes; float() would also take `1_0`, `nan`, `１` and blanks.
_SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]{0,9})?")


# -- tokens ------------------------------------------------------------------------------------------------


async def make_token(exchange: Exchange) -> None:
    relay = exchange.relay
    await relay.admit(presented(exchange.headers), address=exchange.address)
    token = await relay.make_token()
    if exchange.wants_json():
        life = int(relay.settings.token_life)
        await exchange.answer(JSONResponse({"token": token, "expires_in": life}))
    else:
        await exchange.text(token)


async def show_token(exchange: Exchange) -> None:
    """How long a token has left, and its transfers; not a use of it."""
    store, token = exchange.relay.store, exchange.token()
    found = await store.token(token=token)
    if found is None:
        raise Problem(Error.UNKNOWN_TOKEN)
    left, fields = found
    looks = [await store.look(token=token, name=name, use=False) for name, _ in transfers_in(fields)]
    live = [transfer for transfer in looks if transfer is not None]
    if exchange.wants_json():
        transfers = [{"name": t.name, "state": t.state, "length": t.length} for t in live]
        await exchange.answer(JSONResponse({"expires_in": int(left), "transfers": transfers}))
        return
    lines = [f"expires in {int(left)} s"]
    lines += [f"{t.state:<10} {'?' if t.length is None else t.length:>15} {t.name}" for t in live]
    await exchange.text("\n".join(lines))


async def revoke_token(exchange: Exchange) -> None:
    await exchange.relay.revoke(token=exchange.token())
    await exchange.answer(Response(status_code=204))


# -- transfers ---------------------------------------------------------------------------------------------


async def upload(exchange: Exchange) -> None:
    token, name = exchange.token_and_name()
    headers = exchange.headers
    if "content-range" in headers:
        raise Problem(Error.NO_RANGES, header="Content-Range")
    media_type = headers.get("content-type", "")
    if not is_media_type(media_type):
        raise Problem(Error.BAD_TYPE)
    chunked = "transfer-encoding" in headers  # the parser has refused all but those that end in chunked
    sent = await exchange.relay.upload(
        token=token,
        name=name,
        length=None if chunked else int(headers.get("content-length", 0)),
        media_type=media_type,
        body=exchange.body(),
        client=exchange.client,
    )
    if exchange.wants_json():
        await exchange.answer(JSONResponse({"outcome": Outcome.COMPLETE, "bytes": sent}))
    else:
        await exchange.text(f"delivered {sent} bytes")


async def download(exchange: Exchange) -> None:
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
    """The headers a GET would get; takes nothing and does not use the token."""
    token, name = exchange.token_and_name()
    transfer = await exchange.relay.store.look(token=token, name=name, use=False)
    if transfer is None:
        raise Problem(Error.NO_UPLOAD)
    response = Response(headers=download_headers(transfer))
    if transfer.length is None:
        del response.headers["content-length"]
    await exchange.answer(response)


async def cancel(exchange: Exchange) -> None:
    token, name = exchange.token_and_name()
    if not await exchange.relay.cancel(token=token, name=name):
        raise Problem(Error.NO_UPLOAD)
    await exchange.answer(Response(status_code=204))


def _wait(exchange: Exchange) -> float:
    """Seconds of `?wait=`.  Raises Problem(BAD_WAIT)."""
    settings = exchange.relay.settings
    values = parse_qs(exchange.scope["query_string"].decode("latin-1"), keep_blank_values=True).get("wait")
    if values is None:
        return settings.download_wait
    wait = float(values[-1]) if _SECONDS.fullmatch(values[-1]) else -1.0
    if not 0 <= wait <= settings.download_wait_max:
        raise Problem(Error.BAD_WAIT, most=settings.download_wait_max)
    return wait


# -- the node ----------------------------------------------------------------------------------------------


async def healthz(exchange: Exchange) -> None:
    await exchange.text("alive")


async def readyz(exchange: Exchange) -> None:
    if exchange.relay.phase >= Phase.UNREADY:
        raise Problem(Error.DRAINING)
    await exchange.relay.store.check(node=exchange.relay.node.id)
    await exchange.text("ready")


async def openapi(exchange: Exchange) -> None:
    await exchange.answer(JSONResponse(document(exchange.relay.settings)))


async def not_found(exchange: Exchange) -> None:
    raise Problem(Error.NOT_FOUND)
