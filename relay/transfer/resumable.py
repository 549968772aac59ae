"""Resumable uploads: an uploader that loses its connection returns by another request, through any node.

Begin with `ResumableUploads`, which has one method for each request of the protocol; see `api.resumable` for that. The
downloader's position is the truth: a request that begins behind it is refused. One that begins before it, as an offset
asked for a moment ago may, is received and thrown away up to there.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NamedTuple, TypeVar

from relay import tracing
from relay.access import Access
from relay.errors import Error, Problem, problem_for_uploader
from relay.logs import note
from relay.names import UploadAddress, new_id
from relay.server.connection import Connection
from relay.states import Answer, Outcome, State
from relay.store.records import Final, Result, Returned, Transfer, smaller
from relay.transfer.claiming import claim
from relay.transfer.context import Context
from relay.transfer.drain import Phase
from relay.transfer.upload import Upload

T = TypeVar("T")
#: Seconds between two looks at a transfer whose downloader is handed the last bytes, and the maximum number of looks.
_LOOK, _LOOKS = 0.1, 50


class UploadStatus(NamedTuple):
    """How far an upload is: the byte offset to go on from, and the length of the file, None if it is unknown."""

    offset: int
    length: int | None
    is_complete: bool = False


class Part(NamedTuple):
    """What one request brings: the file's bytes from `offset` on, and whether these are its last.

    `length` is the length of the whole file, and `size` that of the body; each is None if the request does not know it.
    """

    offset: int
    size: int | None
    is_last: bool
    length: int | None

    @property
    def file_length(self) -> int | None:
        """The length of the whole file, as far as the request says."""
        if self.length is None and self.is_last and self.size is not None:
            return self.offset + self.size
        return self.length

    def reaches(self, position: int) -> bool:
        """Return whether it has bytes beyond a byte offset of the file."""
        return self.is_last or (self.size is not None and self.offset + self.size > position)

    def check(self, stored: int | None, *, most: int) -> None:
        """Raise Problem if it contradicts itself or the `stored` length of the file, or exceeds `most` bytes."""
        said, end = self.file_length, None if self.size is None else self.offset + self.size
        known = stored if said is None else said
        if stored is not None and said not in (None, stored):
            raise Problem(Error.INCONSISTENT_LENGTH)
        if known is not None and end is not None and (end > known or (self.is_last and end != known)):
            raise Problem(Error.INCONSISTENT_LENGTH)
        if 0 < most < max(known or 0, end or 0):
            raise Problem(Error.TOO_LARGE, most=most)


class ResumableUpload(Upload):
    """One request that brings a part of an upload. If it `is_new`, it creates the upload.

    `announce` tells its client the address of the upload. Without it, the client of a new upload learns that only from
    the answer, and cannot return before.
    """

    #: Its uploader comes back through another node.
    _ends_in = Phase.RELEASED

    def __init__(
        self,
        context: Context,
        transfer: Transfer,
        body: AsyncIterator[bytes],
        client: Connection,
        *,
        part: Part,
        is_new: bool,
        announce: Callable[[], None] | None = None,
        proof: str = "",
    ) -> None:
        super().__init__(context, transfer, body, client, begin=part.offset, proof=proof)
        self._part = part
        self._is_new = is_new
        self._announce = announce
        self._sender = transfer.id if is_new else new_id()
        self._rejoin_wait = context.settings.resume_wait
        #: The byte offset that the downloader wants, if this request begins behind it.
        self._wanted: int | None = None

    @property
    def is_last(self) -> bool:
        """Whether the file ends where the body ends: not if it is known to be longer."""
        return self._part.is_last and self._file_length in (None, self._part.offset + self._intake.total)

    @property
    def _file_length(self) -> int | None:
        said = self._part.file_length
        return self.transfer.length if said is None else said

    @property
    def _is_too_long(self) -> bool:
        """Whether more has come than the file may have, by its length."""
        return self._file_length is not None and self._part.offset + self._intake.total > self._file_length

    async def _receive(self) -> Outcome | None:
        """Take in the body, but no more than the file may still have."""
        ends = [end for end in (self._most or None, self._file_length) if end is not None]
        left = min(ends) - self._part.offset if ends else None
        is_whole = await self._intake.fill(length=self._length, limit=left)
        return None if is_whole else Outcome.TOO_LARGE

    async def _settle(self, outcome: Outcome) -> None:
        if self._is_new and self._announce is None and not self._is_part_done:
            self.transfer = self.transfer._replace(upload="")  # its client does not know where to return
        await super()._settle(outcome)

    async def _enter(self, media_type: str) -> Outcome | None:
        if self._is_new:
            outcome = await self._claim(media_type, length=self._part.file_length)
            if outcome is None and self._announce is not None:
                self._announce()
            return outcome
        await check_offset(self.context, self.transfer, self._part)
        returned = await _take_back(
            self.context, self.transfer, sender=self._sender, state=State.WAITING, length=self._part.file_length
        )
        if not isinstance(returned, Returned):
            raise Problem(Error.SUPERSEDED)
        self.transfer = found = returned.transfer
        self.context.node.load.resumptions["uploader"] += 1
        tracing.begin(
            "upload",
            "returned",
            transfer=found.id,
            token=found.token,
            name=found.name,
            length=found.length,
            leg=found.leg,
            start=self._part.offset,
            delivered=found.position,
        )
        return None

    async def _cannot_go_back(self) -> Outcome:
        """Leave, so that the uploader returns with what the downloader wants."""
        self._wanted = self._start
        self._window.restart(self._start)  # that is how far the transfer is now
        return Outcome.UPLOADER_GONE

    def _problem(self, outcome: Outcome) -> Problem:
        if outcome is Outcome.TOO_LARGE and self._is_too_long:
            return Problem(Error.INCONSISTENT_LENGTH)
        if self._wanted is not None:
            return Problem(Error.MISMATCHING_OFFSET, offset=self._wanted, provided=self._part.offset)
        return Problem(Error.SUPERSEDED) if outcome is Outcome.UPLOADER_GONE else super()._problem(outcome)

    async def _try_to_end(self, outcome: Outcome) -> Outcome | None:
        """End it, or leave it for the uploader to return to."""
        if outcome in (Outcome.STALLED, Outcome.DRAINED):
            return outcome
        return await super()._try_to_end(outcome)


class ResumableUploads:
    """The resumable uploads of a node's clients. A `Relay` has one."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._transfers = context.store.transfers

    def new(self, *, token: str, name: str, sha256: str = "") -> tuple[UploadAddress, Transfer]:
        """Return the address of a new upload, and the transfer that it is to become. Nothing is claimed yet.

        `sha256` is that of the whole file, if it is known already; otherwise `describe` takes it.
        """
        transfer = self._transfers.identify(token=token, name=name)
        address = UploadAddress.new(transfer.id)
        return address, transfer._replace(upload=address.digest, sha256=sha256)

    async def create(self, transfer: Transfer, part: Part, *, media_type: str, proof: str) -> None:
        """Claim the name for an upload whose bytes come in later requests, `part` having none. Raise Problem."""
        part.check(None, most=self._context.settings.max_upload)
        note(transfer=transfer.id)
        length = part.file_length
        with self._context.gate:
            answer = await claim(
                self._context,
                transfer,
                length=length,
                media_type=media_type,
                proof=proof,
                state=State.INTERRUPTED,
            )
            if isinstance(answer, Outcome):
                raise problem_for_uploader(answer, sent=0, seconds=0, most=0)
            self._context.endings.absences.keep(transfer)
            tracing.leave()

    async def upload(
        self,
        transfer: Transfer,
        part: Part,
        *,
        media_type: str,
        body: AsyncIterator[bytes],
        client: Connection,
        announce: Callable[[], None] | None,
        proof: str,
    ) -> int:
        """Create an upload with a body. Return the byte offset in the file that the downloader has reached.

        `announce` is called as soon as the upload exists. If it is None, the client learns the upload's address only
        from the answer. Raise Problem; or ClientGone if there is nobody left to answer.
        """
        upload = ResumableUpload(
            self._context, transfer, body, client, part=part, is_new=True, announce=announce, proof=proof
        )
        return await self._run(upload, part, media_type=media_type)

    async def append(
        self,
        address: UploadAddress,
        part: Part,
        *,
        access: Access,
        name: str,
        body: AsyncIterator[bytes],
        client: Connection,
        sha256: str = "",
    ) -> int:
        """Go on with an upload. Return the byte offset in the file that the downloader has reached.

        `sha256` is that of the whole file, as for `describe`; empty if it is not given.
        Raise Problem; or ClientGone if there is nobody left to answer.
        """

        async def work(found: Transfer) -> int:
            if sha256:
                await self._transfers.describe(found, upload=found.upload, sha256=sha256)
            return await self._append(found, part, body=body, client=client)

        reached = await self._work_on(address, work, access=access, name=name)
        if not isinstance(reached, Result):
            return reached
        if reached.outcome is Outcome.COMPLETE and part == Part(reached.delivered, 0, True, part.length):
            return reached.delivered  # the part before had the last bytes, and this one only says so
        raise _ended(reached)

    async def _append(self, found: Transfer, part: Part, *, body: AsyncIterator[bytes], client: Connection) -> int:
        if part.size == 0 and not part.is_last:
            part.check(found.length, most=self._most(found))
            await check_offset(self._context, found, part)
            return part.offset
        upload = ResumableUpload(self._context, found, body, client, part=part, is_new=False)
        return await self._run(upload, part, media_type="")

    async def status(self, address: UploadAddress, *, access: Access, name: str) -> UploadStatus:
        """Return how far an upload is, once its request before this has ended. Raise Problem."""

        async def ask(found: Transfer) -> UploadStatus:
            return UploadStatus(await stop_request_before(self._context, found), found.length)

        status = await self._work_on(address, ask, access=access, name=name)
        if not isinstance(status, Result):
            return status
        if status.outcome is Outcome.COMPLETE:
            return UploadStatus(status.delivered, status.delivered, is_complete=True)
        raise _ended(status)

    async def describe(self, address: UploadAddress, sha256: str, *, access: Access, name: str) -> None:
        """Record the SHA-256 of the whole file, for the downloader. A request that brings bytes goes on meanwhile.

        Raise Problem.
        """
        found = await self._find(address, access=access, name=name)
        if isinstance(found, Transfer) and await self._transfers.describe(found, upload=found.upload, sha256=sha256):
            return
        raise _ended(found) if isinstance(found, Result) else Problem(Error.UNKNOWN_UPLOAD)

    async def cancel(self, address: UploadAddress, *, access: Access, name: str) -> None:
        """End an upload, for both sides. Raise Problem."""
        found = await self._find(address, access=access, name=name)
        if isinstance(found, Transfer):
            answer = await self._context.endings.end(found, Outcome.CANCELLED)
            if isinstance(answer, Final):
                return
            if answer is Answer.KEPT:
                raise Problem(Error.TOO_LATE)
        raise Problem(Error.UNKNOWN_UPLOAD)

    async def _run(self, upload: ResumableUpload, part: Part, *, media_type: str) -> int:
        most = self._most(upload.transfer)
        part.check(upload.transfer.length, most=most)
        note(transfer=upload.transfer.id)
        with self._context.gate:
            reached = await upload.run(length=part.size, media_type=media_type, most=most)
        if part.is_last and not upload.is_last:  # it has ended too early
            raise Problem(Error.INCONSISTENT_LENGTH)
        return reached

    def _most(self, transfer: Transfer) -> int:
        """Return the maximum bytes of an upload, as far as they are known; 0 means unlimited."""
        return smaller(self._context.settings.max_upload, transfer.max_upload)

    async def _work_on(
        self, address: UploadAddress, work: Callable[[Transfer], Awaitable[T]], *, access: Access, name: str
    ) -> T | Result:
        """Return what `work` with the upload at an address returns; or how the upload has ended, be it meanwhile."""
        found = await self._find(address, access=access, name=name)
        if isinstance(found, Transfer):
            try:
                return await work(found)
            except Problem as problem:
                if problem.error is not Error.UNKNOWN_UPLOAD:
                    raise
            found = await self._find(address, access=access, name=name)
        if isinstance(found, Transfer):
            raise Problem(Error.SUPERSEDED)
        return found

    async def _find(self, address: UploadAddress, *, access: Access, name: str) -> Transfer | Result:
        """Return the upload at an address, or how it ended. Raise Problem(UNKNOWN_UPLOAD)."""
        found = await self._transfers.look(token=access.id, name=name, use=False, proof=access.proof)
        if found is not None and found.id == address.id and secrets.compare_digest(found.upload, address.digest):
            return found
        identity = self._transfers.identify(token=access.id, name=name, transfer_id=address.id)
        result = await self._transfers.result(identity)
        if result is None or not secrets.compare_digest(result.upload, address.digest):
            raise Problem(Error.UNKNOWN_UPLOAD)
        return result


async def check_offset(context: Context, transfer: Transfer, part: Part) -> None:
    """End the request that brings bytes now, if there is one. Raise Problem unless the part can go on from there."""
    position = await stop_request_before(context, transfer)
    if part.offset > position or (part.offset < position and not part.reaches(position)):
        raise Problem(Error.MISMATCHING_OFFSET, offset=position, provided=part.offset)


async def stop_request_before(context: Context, transfer: Transfer) -> int:
    """End the request that brings bytes now, if there is one. Return the byte offset that the downloader has reached.

    Raise Problem.
    """
    for _ in range(_LOOKS):
        answer = await _take_back(context, transfer, sender=new_id(), state=State.INTERRUPTED)
        if isinstance(answer, Returned):
            return answer.transfer.position
        if answer is Answer.GONE:
            raise Problem(Error.UNKNOWN_UPLOAD)
        await asyncio.sleep(_LOOK)  # its last bytes are on their way
    raise Problem(Error.FINISHING)


async def _take_back(
    context: Context, transfer: Transfer, *, sender: str, state: State, length: int | None = None
) -> Returned | Answer:
    """Give an upload to its next request (see `Transfers.take_back`), and wake whoever has to know.

    If both clients are on one node, Redis learns only now and then how far the downloader is, so its node says it.
    """
    here = [each.position for each in context.node.load.downloads if each.transfer.id == transfer.id]
    answer = await context.store.transfers.take_back(
        transfer,
        upload=transfer.upload,
        sender=sender,
        node=context.node.id,
        state=state,
        length=length,
        reached=max(here, default=0),
    )
    if isinstance(answer, Returned):
        for node in {answer.transfer.downloader, answer.former} - {""}:
            await context.node.inbox.send(node, transfer.id)
        if state is State.INTERRUPTED and answer.transfer.leg != transfer.leg:
            context.endings.absences.keep(answer.transfer)
    return answer


def _ended(result: Result) -> Problem:
    """Return what an uploader is told that returns to an upload that has ended."""
    if result.outcome is Outcome.COMPLETE:
        return Problem(Error.COMPLETED_UPLOAD)
    if result.outcome is Outcome.UPLOADER_GONE:
        return Problem(Error.UNKNOWN_UPLOAD)
    problem = problem_for_uploader(result.outcome, sent=result.delivered, seconds=0, most=result.delivered)
    problem.forbid_retry()  # by the draft, a client goes on asking after any 5xx
    return problem
