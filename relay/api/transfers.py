"""Handlers for transfers: upload, download, look at the headers, cancel.

A handler is an async function of an `Exchange`. It parses the request, calls the relay and answers. The `Problem` that
it raises is turned into an answer by `exchange.endpoint`.
"""

import asyncio
import hmac
import re
from collections.abc import Mapping

from starlette.responses import JSONResponse, PlainTextResponse, Response

from relay.access import Access, Link, Right
from relay.api.download_response import ResponseSink, download_headers, etag
from relay.api.exchange import Exchange
from relay.digests import REPR_DIGEST, parse_digest
from relay.errors import Error, Problem
from relay.file_names import file_name, with_file_name
from relay.logs import audit
from relay.names import decode_name
from relay.page import qr
from relay.server.conditions import asked_range
from relay.server.headers import has_coding, is_code, is_form, is_media_type, is_prefetch
from relay.states import Outcome, State
from relay.store.records import Result, Transfer

#: The numbers that `?wait=` takes. float() would also take `1_0`, `nan`, `１` and blanks.
_SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]{0,9})?")
#: What `download_response.etag` returns.
_ETAG = re.compile(r'"([0-9a-f]{16})"')


async def deliver(exchange: Exchange) -> int:
    """Stream the body to a downloader. Return the number of bytes delivered. Raise Problem."""
    access = await exchange.access(Right.SEND)
    media_type = await check_upload(exchange, access)
    return await exchange.relay.upload(
        access,
        name=exchange.name,
        length=body_size(exchange),
        media_type=media_type,
        body=exchange.body(),
        client=exchange.client,
        sha256=digest_of(exchange),
    )


async def check_upload(exchange: Exchange, access: Access) -> str:
    """Return the media type of an upload, with the file name if it has one. Raise Problem if it cannot be taken."""
    _check_count(exchange)
    headers, media_type = exchange.headers, _media_type(exchange)
    if "if-match" in headers:
        await _refuse_to_replace(exchange, access)
    return with_file_name(media_type, file_name(headers.get("content-disposition", "")))


def digest_of(exchange: Exchange) -> str:
    """Return the SHA-256 of the whole file that the request gives; empty if it gives none. Raise Problem."""
    return parse_digest(exchange.joined(REPR_DIGEST) or "")


def body_size(exchange: Exchange) -> int | None:
    """Return the bytes that an upload's body has, None if that is unknown. Raise Problem(NO_LENGTH)."""
    headers = exchange.headers
    if "transfer-encoding" in headers:  # the server has refused all but `chunked`
        return None
    if "content-length" not in headers:
        # RFC 9112 section 6.3: such a request has no body. But whoever sent one would be told that 0 bytes arrived.
        raise Problem(Error.NO_LENGTH)
    return int(headers["content-length"])


async def answer_delivered(exchange: Exchange, sent: int, headers: Mapping[str, str] | None = None) -> None:
    """Answer that all `sent` bytes of a file have arrived."""
    if exchange.wants_json():
        await exchange.answer(JSONResponse({"outcome": Outcome.COMPLETE, "bytes": sent}, headers=headers))
    else:
        await exchange.answer(PlainTextResponse(f"delivered {sent} bytes\n", headers=headers))


async def download(exchange: Exchange) -> None:
    """Answer with the bytes of an upload. Cut the connection if they do not all arrive: nothing else says so."""
    access = await exchange.access(Right.RECEIVE)
    _check_count(exchange)
    headers, wait = exchange.headers, _wait(exchange, exchange.relay.settings.download_wait)
    if is_prefetch(headers):
        raise Problem(Error.NO_PREFETCH)
    if is_code(headers):
        raise Problem(Error.NO_CODE)
    if exchange.is_conditional and await _answer_failed_condition(exchange, await _find(exchange, access, wait)):
        return
    asked = asked_range(exchange.joined("range") or "")
    sink = ResponseSink(exchange, asked, if_range=headers.get("if-range", ""))
    outcome = await exchange.relay.download(access, name=exchange.name, wait=wait, sink=sink, client=exchange.client)
    if outcome is not Outcome.COMPLETE:
        await exchange.client.cut()


async def head(exchange: Exchange) -> None:
    """Answer with the headers that a GET would get, and how far the transfer is.

    This takes nothing, and does not count as a use of the token. It waits for an upload only if `?wait=` says so,
    because it is a question of how things stand. Section 14.2 of RFC 9110 defines `Range` for GET alone.

    If the upload that `If-Match` names is over, the error says how it ended, and has the digest of a file that was
    delivered: a sender that reads its file once knows it only at the end, when the headers of the GET are gone.
    """
    _check_count(exchange)
    access = await exchange.access(Right.RECEIVE)
    try:
        transfer = await _find(exchange, access, _wait(exchange, 0))
        if await _answer_failed_condition(exchange, transfer):
            return
    except Problem as problem:
        if problem.error in (Error.NO_UPLOAD, Error.CONDITION_FAILED):
            problem.details["ended"] = await _result_of_asked(exchange, access)
        raise
    (delivered,) = await exchange.relay.delivered([transfer])
    progress = {"relay-state": str(transfer.state), "relay-delivered": str(delivered)}
    response = Response(headers=download_headers(transfer) | progress)
    if transfer.length is None:
        del response.headers["content-length"]
    await exchange.answer(response)


async def _result_of_asked(exchange: Exchange, access: Access) -> Result | None:
    """Return how the upload ended whose ETag alone is in `If-Match`; None if that is not known (any more)."""
    asked = _ETAG.fullmatch(exchange.headers.get("if-match", ""))
    return await exchange.relay.result_of(access, name=exchange.name, transfer_id=asked[1]) if asked else None


async def cancel(exchange: Exchange) -> None:
    """End the transfer of a name, for both sides."""
    access = await exchange.access(None)
    if exchange.is_conditional and (header := exchange.failed_condition(etag(await _find(exchange, access, 0)))):
        raise Problem(Error.CONDITION_FAILED, header=header)
    if not await exchange.relay.cancel(access, name=exchange.name):
        raise Problem(Error.NO_UPLOAD)
    audit("cancelled", token=access.id, name=exchange.name)
    await exchange.answer(Response(status_code=204))


def _media_type(exchange: Exchange) -> str:
    """Return the type of the upload's bytes. Raise Problem if the upload is not a whole file as it is."""
    headers = exchange.headers
    if "content-range" in headers:
        raise Problem(Error.NO_RANGES, header="Content-Range")
    media_type = headers.get("content-type", "")
    if not is_media_type(media_type):
        raise Problem(Error.BAD_TYPE)
    if is_form(media_type):
        raise Problem(Error.FORM)
    if has_coding(exchange.joined("content-encoding") or ""):
        raise Problem(Error.BAD_CODING)
    return media_type


async def _find(exchange: Exchange, access: Access, wait: float) -> Transfer:
    """Return the upload of the name, without taking it. Raise Problem(NO_UPLOAD) if there is none within the wait."""
    return await exchange.relay.find(access, name=exchange.name, wait=wait, client=exchange.client)


async def _answer_failed_condition(exchange: Exchange, transfer: Transfer) -> bool:
    """Answer a GET or a HEAD whose condition does not hold for the upload that it would get. This takes nothing.

    Return False if the condition holds. Conditions count only if the status would be 2xx without them (RFC 9110 section
    13.2.1).
    """
    header = exchange.failed_condition(etag(transfer))
    if header is None:
        return False
    if exchange.scope["method"] == "GET" and transfer.state in (State.STREAMING, State.FINISHING):
        raise Problem(Error.TAKEN)
    if header == "If-None-Match":
        await exchange.answer(Response(status_code=304, headers={"etag": etag(transfer)}))
        return True
    raise Problem(Error.CONDITION_FAILED, header=header)


async def _refuse_to_replace(exchange: Exchange, access: Access) -> None:
    """Raise the Problem of an upload that may only replace something: nothing is stored that it could replace."""
    if await exchange.relay.look(access, name=exchange.name) is not None:
        raise Problem(Error.NAME_IN_USE)
    raise Problem(Error.CONDITION_FAILED, header="If-Match")


def _wait(exchange: Exchange, default: float) -> float:
    """Return the seconds in `?wait=`, or the default. Raise Problem(BAD_WAIT)."""
    values, most = exchange.query.get("wait"), exchange.relay.settings.download_wait_max
    if not values:
        return default
    wait = float(values[-1]) if _SECONDS.fullmatch(values[-1]) else -1.0
    if not 0 <= wait <= most:
        raise Problem(Error.BAD_WAIT, most=most)
    return wait


def _check_count(exchange: Exchange) -> None:
    """Raise Problem(BAD_COUNT) if `?n=` asks for several downloaders: only one of them would get the file."""
    if any(value != "1" for value in exchange.query.get("n", ())):
        raise Problem(Error.BAD_COUNT)


async def make_link(exchange: Exchange) -> None:
    """Answer with a link to the name, which allows only to receive it, or with `?for=send` only to send it.

    Nothing is made but the answer, and this is no use of the token.
    """
    access = exchange.token()
    if not hmac.compare_digest((await exchange.relay.access_of(access.id)).proof, access.proof):
        raise Problem(Error.UNKNOWN_TOKEN)
    rights = {"receive": Right.RECEIVE, "send": Right.SEND}
    if (wanted := exchange.query.get("for", ["receive"])[-1]) not in rights:
        raise Problem(Error.BAD_RIGHT)
    link = str(Link.make(access, rights[wanted], decode_name(exchange.name)))
    code = await _qr_code(exchange, link)
    if exchange.wants_json():
        await exchange.answer(JSONResponse({"link": link, "for": wanted} | code))
    else:
        await exchange.text(link)


async def _qr_code(exchange: Exchange, link: str) -> dict[str, list[str]]:
    """Return the QR code that `?qr=` asks for. Only the client knows the relay's address, as others see it."""
    if not (templates := exchange.query.get("qr")):
        return {}
    text = templates[-1].replace("{link}", link)
    if link not in text or len(text) > qr.TEXT_MOST:
        raise Problem(Error.BAD_QR, most=qr.TEXT_MOST)
    return {"qr": await asyncio.to_thread(qr.rows, text)}
