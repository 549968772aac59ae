"""A download's response: its headers, its bytes, and whether its client took all of them."""

import math

from starlette.types import Message

from relay.api.exchange import Exchange, encoded
from relay.buffers import Bytes
from relay.digests import digest_header
from relay.errors import ClientGone, Error, Problem
from relay.file_names import split_file_name
from relay.names import content_disposition, decode_name
from relay.server.conditions import LARGEST, Range
from relay.server.delivery import Delivery
from relay.store.records import Transfer

#: Maximum bytes, the last ones included, that a client may still have to acknowledge when its transfer becomes
#: FINISHING. Nobody can cancel it from then on, so a client that has stopped reading must not stay in that state for
#: minutes.
_BEHIND_MAX = 64 * 1024


def etag(transfer: Transfer) -> str:
    """Return the ETag of an upload: another upload of the same name may have other bytes."""
    return f'"{transfer.id}"'


def download_headers(transfer: Transfer) -> dict[str, str]:
    """The headers of a download, beside those that every answer has."""
    media_type, file_name = split_file_name(transfer.type)
    headers = {
        "content-type": media_type or "application/octet-stream",
        "content-disposition": content_disposition(file_name or decode_name(transfer.name)),
        "accept-ranges": "bytes",
        "etag": etag(transfer),
    } | digest_header(transfer.sha256)
    if transfer.length is not None:
        headers["content-length"] = str(transfer.length)
    return headers


def range_headers(transfer: Transfer, start: int) -> tuple[int, dict[str, str]]:
    """Return the status and the headers of a response that begins at byte offset `start`; RFC 9110 section 14.4."""
    length = transfer.length
    if length is None:
        return 206, {"content-range": f"bytes {start}-{LARGEST}/*"}  # RFC 8673 section 2.2
    if start == length:  # the client has everything
        return 416, {"content-range": f"bytes */{length}", "content-length": "0"}
    return 206, {"content-range": f"bytes {start}-{length - 1}/{length}", "content-length": str(length - start)}


class ResponseSink:
    """A download's response. `asked` is the range that the client asks for: a file from some byte on.

    `if_range` is the ETag for which alone the range counts; empty if it counts for any.
    """

    def __init__(self, exchange: Exchange, asked: Range | None = None, *, if_range: str = "") -> None:
        self.begun = False
        self._asked = asked
        self._if_range = if_range
        self._first = 0
        #: The headers, if they go out with the last bytes.
        self._start: Message | None = None
        self._exchange = exchange
        self._client = exchange.client

    def start_of(self, transfer: Transfer) -> int:
        if transfer.length is None and self._exchange.scope["http_version"] == "1.0":
            raise Problem(Error.HTTP_1_0)
        self._first = 0
        if self._asked is not None and self._if_range in ("", etag(transfer)):
            self._first = self._asked.start(transfer.length)
        return self._first

    async def begin(self, transfer: Transfer, *, at_end: bool = False) -> None:
        status, more = range_headers(transfer, self._first) if self._first else (200, {})
        own = download_headers(transfer) | more | {"connection": "close"}
        raw = [*self._exchange.common_headers(), *encoded(own)]
        start: Message = {"type": "http.response.start", "status": status, "headers": raw}
        if at_end:
            self._start = start
        else:
            await self._send(start)
        self.begun = True

    async def write(self, data: Bytes) -> None:
        if not await self._client.has_room():
            raise ClientGone
        if not self._client.write(data):
            await self._send({"type": "http.response.body", "body": data, "more_body": True})

    def can_take(self, data: Bytes) -> bool:
        """Return whether the client can be given the last bytes at once, because it is not behind.

        A proxy never is: its reset, which may come at the end, would lose them if it has not acknowledged them. Nor is
        a client over TLS: bytes that have not reached the kernel when it closes TLS are thrown away, and nobody can
        ask how many those are.
        """
        client = self._client
        return not client.behind_proxy and not client.is_tls and client.behind + len(data) <= _BEHIND_MAX

    async def catch_up(self) -> None:
        with Delivery(self._client) as delivery:
            if not await delivery.acknowledged(patience=math.inf):  # the download notices a stall
                raise ClientGone

    async def complete(self, data: Bytes) -> None:
        """Complete the response, and find out whether the client took all of it."""
        client, patience = self._client, self._exchange.relay.settings.stall
        with Delivery(client) as delivery:
            if self._start is not None:
                if data:
                    client.join_head()
                await self._send(self._start)
            if client.is_tls:
                # Our close_notify is data. The kernel of a client that has closed would respond to it with a reset, as
                # if bytes had been left unread: so let the client close first.
                client.hold()
            # The client of an empty file has everything with the headers, and may be leaving already.
            send = self._send if data or self._start is None else self._exchange.send
            await send({"type": "http.response.body", "body": data, "more_body": False})
            if not await delivery.complete(patience=patience):
                raise ClientGone

    def progress(self) -> int:
        return self._client.progress()

    async def _send(self, message: Message) -> None:
        # uvicorn's send() returns as if all were well when the client has gone (ASGI 2.3).
        if not await self._client.has_room():
            raise ClientGone
        await self._exchange.send(message)
        if self._client.is_lost:
            raise ClientGone
