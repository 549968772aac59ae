"""Handlers for resumable uploads, after draft-ietf-httpbis-resumable-upload (interop versions 8 and 9).

An upload with `Upload-Complete` creates an upload resource, whose address `/TOKEN/NAME/UPLOAD` only its uploader knows.
There HEAD asks how far the upload is, PATCH brings more, POST gives the file's digest, and DELETE cancels.
`transfer.resumable` does the work.
"""

from starlette.responses import Response

from relay.access import Access, Right
from relay.api import transfers, upload_fields
from relay.api.exchange import Exchange
from relay.api.upload_fields import COMPLETE, LENGTH, OFFSET, PARTIAL, VERSION, UploadFields
from relay.errors import Error, Problem
from relay.logs import audit
from relay.names import UploadAddress
from relay.server.headers import has_coding
from relay.server.proxies import is_within
from relay.transfer.resumable import Part

_FIELDS = frozenset({COMPLETE, OFFSET, LENGTH, VERSION})


async def upload(exchange: Exchange) -> None:
    """Stream the body to a downloader, as one upload or as the first part of a resumable one."""
    fields = _fields(exchange)
    if fields.is_last is None or (fields.is_last and fields.is_foreign):
        await transfers.answer_delivered(exchange, await transfers.deliver(exchange))
    elif fields.is_foreign:
        raise Problem(Error.OTHER_DRAFT)
    elif fields.is_last and not _takes_announcement(exchange, fields):
        # Nothing would tell the client the address before all is over, so the upload could not be resumed.
        _part(exchange, fields, 0, is_last=True).check(None, most=0)
        await _answer_complete(exchange, await transfers.deliver(exchange))
    else:
        await _create(exchange, fields, is_last=fields.is_last)


async def head(exchange: Exchange) -> None:
    """Answer how far an upload is. A request that brings bytes is ended first."""
    access, address = await _where(exchange)
    status = await exchange.relay.resumable.status(address, access=access, name=exchange.name)
    headers = upload_fields.written(offset=status.offset, is_complete=status.is_complete)
    if status.length is not None:
        headers[LENGTH] = str(status.length)
    headers |= upload_fields.limits(exchange.relay.settings)
    await exchange.answer(Response(status_code=204, headers=headers))


async def append(exchange: Exchange) -> None:
    """Stream the next part of an upload to the downloader."""
    access, address = await _where(exchange)
    fields = _fields(exchange)
    if exchange.headers.get("content-type", "").partition(";")[0].strip().lower() != PARTIAL:
        raise Problem(Error.NOT_PARTIAL)
    if has_coding(exchange.joined("content-encoding") or ""):
        raise Problem(Error.BAD_CODING)
    offset, is_last = fields.part()
    part = _part(exchange, fields, offset, is_last=is_last)
    reached = await exchange.relay.resumable.append(
        address,
        part,
        access=access,
        name=exchange.name,
        body=exchange.body(),
        client=exchange.client,
        sha256=transfers.digest_of(exchange),
    )
    if is_last:
        await _answer_complete(exchange, reached)
    else:
        headers = upload_fields.written(offset=reached, is_complete=False)
        await exchange.answer(Response(status_code=204, headers=headers))


async def describe(exchange: Exchange) -> None:
    """Take the digest of the whole file, while another request may bring its bytes."""
    access, address = await _where(exchange)
    sha256 = transfers.digest_of(exchange)
    if not sha256:
        raise Problem(Error.BAD_DIGEST)
    await exchange.relay.resumable.describe(address, sha256, access=access, name=exchange.name)
    await exchange.answer(Response(status_code=204))


async def cancel(exchange: Exchange) -> None:
    """End an upload, for both sides."""
    access, address = await _where(exchange)
    await exchange.relay.resumable.cancel(address, access=access, name=exchange.name)
    audit("cancelled", token=access.id, name=exchange.name, transfer=address.id)
    await exchange.answer(Response(status_code=204))


async def _create(exchange: Exchange, fields: UploadFields, *, is_last: bool) -> None:
    """Create an upload, with all of the file, with a part of it, or empty."""
    access, name = await exchange.access(Right.SEND), exchange.name
    media_type = await transfers.check_upload(exchange, access)
    part = _part(exchange, fields, 0, is_last=is_last)
    resumable, limits = exchange.relay.resumable, upload_fields.limits(exchange.relay.settings)
    address, transfer = resumable.new(token=access.id, name=name, sha256=transfers.digest_of(exchange))
    location = {"location": f"/{exchange.segments[0].decode()}/{name}/{address}"}

    def announce() -> None:
        exchange.client.announce_upload(location | limits | {VERSION: str(fields.version)})

    reached = 0
    if part.size == 0 and not is_last:
        await resumable.create(transfer, part, media_type=media_type, proof=access.proof)
    else:
        reached = await resumable.upload(
            transfer,
            part,
            media_type=media_type,
            body=exchange.body(),
            client=exchange.client,
            announce=announce if _takes_announcement(exchange, fields) else None,
            proof=access.proof,
        )
    if is_last:
        await _answer_complete(exchange, reached)
    else:
        headers = location | limits | upload_fields.written(offset=reached, is_complete=False)
        await exchange.answer(Response(status_code=201, headers=headers))


async def _where(exchange: Exchange) -> tuple[Access, UploadAddress]:
    """Return the access that the path gives, and the address of the upload. Raise Problem if there is none."""
    return await exchange.access(Right.SEND), UploadAddress.parse(exchange.segments[2])


def _fields(exchange: Exchange) -> UploadFields:
    if _FIELDS.isdisjoint(exchange.headers):  # as in most uploads, which are plain
        return upload_fields.NONE
    return upload_fields.parse({name: exchange.joined(name) for name in _FIELDS})


async def _answer_complete(exchange: Exchange, size: int) -> None:
    """Answer that all bytes of a file have arrived. This comes from the resource that processed it, by the draft."""
    await transfers.answer_delivered(exchange, size, upload_fields.written(offset=size, is_complete=True))


def _part(exchange: Exchange, fields: UploadFields, offset: int, *, is_last: bool) -> Part:
    """Return what the request brings. Raise Problem.

    A request without a length has no body: that is enough to create an upload, but might complete one by mistake.
    """
    headers = exchange.headers
    is_bare = "transfer-encoding" not in headers and "content-length" not in headers
    size = 0 if is_bare and not is_last else transfers.body_size(exchange)
    return Part(offset, size, is_last, fields.length)


def _takes_announcement(exchange: Exchange, fields: UploadFields) -> bool:
    """Return whether the client, and all between, can take a `104 Upload Resumption Supported`.

    The draft forbids it unless the client has sent our interop version. A proxy may take it for the final response.
    """
    client = exchange.client
    if fields.version is None or fields.is_foreign:
        return False
    proxies = exchange.relay.settings.interim_proxies
    return client.takes_interim or (exchange.scope["http_version"] == "1.1" and is_within(client.peer, proxies))
