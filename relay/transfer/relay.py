"""What a node does for its clients: the operations behind the addresses."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from functools import partial

from relay.access import Access, Token
from relay.cluster.node import Node
from relay.errors import Error, Problem
from relay.logs import note
from relay.metrics import Metrics
from relay.server.connection import Connection
from relay.settings import Settings
from relay.states import Answer, Outcome, State
from relay.store.records import UNLIMITED, Final, Grant, Result, Transfer, transfers_in
from relay.store.store import Store
from relay.transfer.context import Context
from relay.transfer.doubt import confirm
from relay.transfer.download import STARTS_AGAIN, Download, Sink
from relay.transfer.finding import Finder
from relay.transfer.resumable import ResumableUploads
from relay.transfer.upload import Upload

#: Maximum uploads that a list of a token's transfers inquires about.
_INQUIRIES_MAX = 100


class Relay:
    """What a node does for its clients: one method for each operation. A process has one."""

    def __init__(self, settings: Settings, store: Store, metrics: Metrics, node: Node) -> None:
        self.settings = settings
        self.store = store
        self.metrics = metrics
        self.node = node
        self.context = Context(settings, store, metrics, node)
        self.gate = self.context.gate
        self.resumable = ResumableUploads(self.context)

    async def make_token(self, grant: Grant = UNLIMITED) -> Token:
        """Return a new token, which may do what the grant says. Raise Problem."""
        with self.gate:
            token = Token.new()
            while not await self.store.tokens.make(token=token.id, digest=token.access.proof, grant=grant):
                token = Token.new()  # the id is that of another token
            self.node.load.used_tokens.add(token.id)
            self.metrics.tokens.inc()
            if grant.owner:
                self.metrics.tokens_of.labels(grant.owner).inc()
            return token

    async def access_of(self, token: str) -> Access:
        """Return what the secret of the token with this id would give access to. Raise Problem(UNKNOWN_TOKEN)."""
        digest = await self.store.tokens.digest(token=token)
        if not digest:
            raise Problem(Error.UNKNOWN_TOKEN)
        return Access(token, digest)

    async def upload(
        self,
        access: Access,
        *,
        name: str,
        length: int | None,
        media_type: str,
        body: AsyncIterator[bytes],
        client: Connection,
        sha256: str = "",
    ) -> int:
        """Wait for a downloader, and stream `body` to it. Return the bytes sent, all of which have arrived.

        `sha256` is that of the whole file as the client gave it, for the downloader; empty if it gave none.
        Raise Problem; or ClientGone if there is nobody left to answer.
        """
        largest = self.settings.max_upload
        if 0 < largest < (length or 0):
            raise Problem(Error.TOO_LARGE, most=largest)
        transfer = self.store.transfers.identify(token=access.id, name=name, sha256=sha256)
        upload = Upload(self.context, transfer, body, client, proof=access.proof)
        try:
            note(transfer=transfer.id)
            with self.gate:
                return await upload.run(length=length, media_type=media_type, most=largest)
        except Problem as problem:
            if length is None and upload.has_begun:  # it may come from a pipe
                problem.forbid_retry()
            raise

    async def download(self, access: Access, *, name: str, wait: float, sink: Sink, client: Connection) -> Outcome:
        """Wait up to `wait` seconds for an upload, and stream it to `sink`. Return how it ended.

        Raise Problem if nothing was sent; or ClientGone if there is nobody left to answer.
        """
        finder = Finder(self.context, access, name=name, wait=wait, client=client)
        with self.gate, finder:
            while True:
                transfer = await finder.find()
                if joined := await finder.join(transfer, start=sink.start_of(transfer)):
                    note(transfer=transfer.id)
                    self.node.load.resumptions["downloader"] += transfer.legs > 0
                    outcome = await Download(self.context, transfer, joined, sink, client).run()
                    if sink.begun or outcome not in STARTS_AGAIN:
                        return outcome
                finder.check_client()

    async def look(self, access: Access, *, name: str) -> Transfer | None:
        """Return the live transfer of a name, if its uploader is still there. Raise Problem(UNKNOWN_TOKEN)."""
        transfer = await self.store.transfers.look(token=access.id, name=name, use=False, proof=access.proof)
        return await confirm(self.context, transfer) if transfer is not None else None

    async def find(self, access: Access, *, name: str, wait: float, client: Connection) -> Transfer:
        """Wait up to `wait` seconds for an upload, and return it. This takes nothing and is no use of the token.

        Raise Problem; or ClientGone if there is nobody left to answer.
        """
        if not wait:
            transfer = await self.look(access, name=name)
            if transfer is None:
                raise Problem(Error.NO_UPLOAD)
            return transfer
        finder = Finder(self.context, access, name=name, wait=wait, client=client, takes=False)
        with self.gate, finder:
            return await finder.find()

    async def list_token(self, access: Access) -> tuple[float, list[Transfer]]:
        """Return the seconds that a token has left, and its live transfers. Raise Problem(UNKNOWN_TOKEN).

        If it has very many transfers, the clients of those beyond the first hundred are not inquired about.
        """
        found = await self.store.tokens.read(token=access.id, proof=access.proof)
        if found is None:
            raise Problem(Error.UNKNOWN_TOKEN)
        left, fields = found
        names = [name for name, _ in transfers_in(fields)]
        inquired = await asyncio.gather(*(self.look(access, name=name) for name in names[:_INQUIRIES_MAX]))
        look = partial(self.store.transfers.look, token=access.id, use=False)
        others = [await look(name=name) for name in names[_INQUIRIES_MAX:]]
        return left, [transfer for transfer in (*inquired, *others) if transfer is not None]

    async def delivered(self, transfers: Sequence[Transfer]) -> list[int]:
        """Return how many bytes of each of a token's transfers its downloader has. Raise StoreUnavailable.

        If both clients are on one node, Redis learns it once a second only, so a node counts its own uploads.
        """
        recorded = await self.store.transfers.delivered(transfers)
        now, wanted = time.monotonic(), {transfer.id for transfer in transfers}
        held = [upload for upload in self.node.load.uploads[State.STREAMING] if upload.transfer.id in wanted]
        here = {upload.transfer.id: upload.progress(now).delivered for upload in held}
        return [max(bytes_, here.get(each.id, 0)) for each, bytes_ in zip(transfers, recorded, strict=True)]

    async def result_of(self, access: Access, *, name: str, transfer_id: str) -> Result | None:
        """Return how a resumable upload ended, if that was in the last minutes. The caller has checked the access."""
        identity = self.store.transfers.identify(token=access.id, name=name, transfer_id=transfer_id)
        return await self.store.transfers.result(identity)

    async def cancel(self, access: Access, *, name: str, transfer_id: str = "") -> bool:
        """End the live transfer of a name, for both sides; if an id is given, only that one. Return False if there is
        none.

        Raise Problem(UNKNOWN_TOKEN), or Problem(TOO_LATE) if the downloader has been handed the last bytes.
        """
        transfer = await self.store.transfers.look(token=access.id, name=name, use=False, proof=access.proof)
        if transfer is None or transfer_id not in ("", transfer.id):
            return False
        answer = await self.context.endings.end(transfer, Outcome.CANCELLED)
        if answer is Answer.KEPT:
            raise Problem(Error.TOO_LATE)
        if answer is Answer.GONE:
            # Our own call may have ended it, and its reply was lost: the repeat found nothing.
            return (await self.store.transfers.touch(transfer)).outcome is Outcome.CANCELLED
        return isinstance(answer, Final)

    async def revoke(self, access: Access) -> None:
        """Delete a token and end its transfers, except those whose downloaders have been handed the last bytes.

        Raise Problem(UNKNOWN_TOKEN).
        """
        transfers = await self.store.tokens.revoke(token=access.id, proof=access.proof)
        if transfers is None:
            raise Problem(Error.UNKNOWN_TOKEN)
        self.node.load.used_tokens.add(access.id)
        for name, transfer_id in transfers:
            transfer = self.store.transfers.identify(token=access.id, name=name, transfer_id=transfer_id)
            await self.context.endings.end(transfer, Outcome.REVOKED)
