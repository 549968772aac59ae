"""What a node does for its clients: the operations behind the addresses.  See `transfer` for the streaming."""

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Sequence

from limits import RateLimitItem

from relay.cluster.node import RECHECK, Node
from relay.credentials import matches
from relay.errors import ClientGone, Error, Problem, StoreUnavailable
from relay.logs import note
from relay.names import new_id, new_token
from relay.server.connection import Connection
from relay.settings import Settings
from relay.states import Answer, Outcome
from relay.store.rates import Rate, parse_rate
from relay.store.records import Final, Transfer
from relay.store.store import Store
from relay.transfer.download import Download, Sink
from relay.transfer.drain import Phase
from relay.transfer.upload import Upload
from relay.transfer.work import Work


class Relay(Work):
    """One per process."""

    def __init__(self, settings: Settings, store: Store, node: Node) -> None:
        super().__init__(settings, store, node)
        self._secrets = [secret for secret in settings.token_secret.split(",") if secret]
        self._tokens = _limit(Rate.TOKENS, settings.token_rate)
        self._failures = _limit(Rate.FAILURES, settings.failure_rate)

    async def admit(self, credentials: Sequence[str], *, address: str) -> None:
        """Raises Problem unless a token may be made by whoever presents `credentials`."""
        if self._secrets:
            await self.refuse_guessers(address=address)
            if not matches(credentials, self._secrets):
                raise Problem(Error.SECRET_NEEDED)
        if self._tokens and (seconds := await self.store.spend(*self._tokens, address=address)):
            raise _too_many("tokens", seconds)

    async def refuse_guessers(self, *, address: str) -> None:
        """Raises Problem(TOO_MANY) for who has presented too many wrong tokens or secrets.

        Whoever guesses secrets is not listened to any more, even if the next guess were right.
        """
        if self._failures and (seconds := await self.store.is_spent(*self._failures, address=address)):
            raise _too_many("refusals", seconds)

    async def limit_failures(self, problem: Problem, *, address: str) -> Problem:
        """Counts a wrong token or secret.  Answers what to tell the client: that, or that it was one too many.

        A right token is let in regardless: it cannot be guessed, and its owner may share the address with
        whoever tries.  So where Redis is away nothing is lost by not counting.
        """
        if self._failures and problem.error in (Error.UNKNOWN_TOKEN, Error.SECRET_NEEDED, Error.OPERATORS_ONLY):
            with contextlib.suppress(StoreUnavailable):
                if seconds := await self.store.spend(*self._failures, address=address):
                    return _too_many("refusals", seconds)
        return problem

    async def make_token(self) -> str:
        """A new token.  Raises Problem."""
        with self.taking():
            token = new_token()
            await self.store.mint(token=token)
            self.node.used.add(token)
            self.metrics.tokens.inc()
            return token

    async def upload(
        self,
        *,
        token: str,
        name: str,
        length: int | None,
        media_type: str,
        body: AsyncIterator[bytes],
        client: Connection,
    ) -> int:
        """Waits for a downloader and streams `body` to it.  Answers the bytes sent, all of which arrived.

        Raises Problem, or ClientGone where nobody is left to answer.
        """
        most = await self._most(token, length or 0)
        transfer = self.store.transfer(token=token, name=name, transfer_id=new_id())
        note(transfer=transfer.id)
        with self.taking():
            return await Upload(self, transfer, body, client).run(length=length, media_type=media_type, most=most)

    async def download(self, *, token: str, name: str, wait: float, sink: Sink, client: Connection) -> Outcome:
        """Waits up to `wait` seconds for an upload and streams it to `sink`.  Answers how it ended.

        Raises Problem while nothing has been sent, ClientGone where nobody is left to answer.
        """
        topic = self.store.keys.transfer(token, name)
        wanted = False
        try:
            with (
                self.taking(),
                self.node.listening(topic) as listener,
                client.on_lost(listener.set),
            ):
                deadline, use = time.monotonic() + wait, True
                while True:
                    may_wait = time.monotonic() < deadline
                    wanted = wanted or may_wait
                    transfer = await self._find(token=token, name=name, use=use, may_wait=may_wait)
                    self.node.used.add(token)
                    use = False
                    if transfer is not None:
                        sink.check(transfer)
                        if await self._join(transfer, joiner := new_id()):
                            wanted = False  # which Redis has forgotten by itself
                            note(transfer=transfer.id)
                            outcome = await Download(self, transfer, joiner, sink, client).run()
                            if sink.begun or outcome is not Outcome.UPLOADER_GONE:
                                return outcome
                    elif may_wait:
                        with client.watched():  # who waits may have sent more requests, and is not read then
                            await listener.wait(min(RECHECK, deadline - time.monotonic()))
                    else:
                        raise Problem(Error.NO_UPLOAD)
                    self._still_waiting(client)
        finally:
            if wanted and not self.node.listens(topic):
                self.spawn(self._unwant(token, name))

    async def cancel(self, *, token: str, name: str) -> bool:
        """Ends the live transfer of a name, for both sides; False where there is none.

        Raises Problem(UNKNOWN_TOKEN), or Problem(TOO_LATE) where the downloader has been handed the last bytes.
        """
        transfer = await self.store.look(token=token, name=name, use=False)
        answer = await self.end(transfer, Outcome.CANCELLED) if transfer is not None else Answer.GONE
        if answer is Answer.KEPT:
            raise Problem(Error.TOO_LATE)
        return isinstance(answer, Final)

    async def revoke(self, *, token: str) -> None:
        """Deletes a token and ends its transfers, but for those whose downloaders have been handed the last bytes.

        Raises Problem(UNKNOWN_TOKEN).
        """
        transfers = await self.store.revoke(token=token)
        if transfers is None:
            raise Problem(Error.UNKNOWN_TOKEN)
        self.node.used.add(token)
        for name, transfer_id in transfers:
            await self.end(self.store.transfer(token=token, name=name, transfer_id=transfer_id), Outcome.REVOKED)

    async def _most(self, token: str, length: int) -> int:
        """Bytes that an upload may have, 0 for any number, which is known to have at least `length`.  Raises Problem.

        What a token has left each of its uploads may use: they are counted when they end.
        """
        most, all_most = self.settings.max_upload, self.settings.token_bytes
        if 0 < most < length:
            raise Problem(Error.TOO_LARGE, most=most)
        if all_most:
            left = max(0, all_most - await self.store.carried(token=token))
            if left < max(1, length):
                raise Problem(Error.SPENT, most=left)
            most = min(most or left, left)
        return most

    async def _find(self, *, token: str, name: str, use: bool, may_wait: bool) -> Transfer | None:
        """The upload that waits under a name; one whose node is dead is cleared away.

        Where there is none and a download `may_wait`, the next claim of the name wakes us.
        """
        waits_on = self.node.id if may_wait else ""
        while True:
            transfer = await self.store.look(token=token, name=name, use=use, waits_on=waits_on)
            if transfer is None or await self.node.is_alive(transfer.decider):
                return transfer
            await self.end(transfer, Outcome.NODE_LOST)
            use = False

    async def _join(self, transfer: Transfer, joiner: str) -> bool:
        """Joins; False where the upload was over.  Raises Problem(TAKEN).

        Redis may have joined us though we are not told (cancelled, or the reply lost): then we leave again.
        """
        joining = self.spawn(self.store.join(transfer, joiner=joiner, node=self.node.id))
        try:
            answer = await asyncio.shield(joining)
        except (asyncio.CancelledError, StoreUnavailable):
            self.spawn(self._leave(joining, transfer, joiner))
            raise
        if answer is Answer.TAKEN:
            raise Problem(Error.TAKEN)
        return answer is Answer.JOINED

    async def _leave(self, joining: "asyncio.Task[Answer]", transfer: Transfer, joiner: str) -> None:
        with contextlib.suppress(StoreUnavailable):
            await joining
        with contextlib.suppress(StoreUnavailable):
            if isinstance(await self.end(transfer, Outcome.DOWNLOADER_GONE, joiner=joiner), Final):
                await self.store.forget(transfer.keys.chunks)

    async def _unwant(self, token: str, name: str) -> None:
        with contextlib.suppress(StoreUnavailable):
            await self.store.unwant(token=token, name=name, node=self.node.id)

    def _still_waiting(self, client: Connection) -> None:
        if client.is_lost:
            raise ClientGone
        if self.phase >= Phase.RELEASED:
            raise Problem(Error.DRAINING)


def _limit(what: Rate, text: str) -> tuple[Rate, RateLimitItem] | None:
    rate = parse_rate(text)
    return (what, rate) if rate is not None else None


def _too_many(what: str, seconds: float) -> Problem:
    problem = Problem(Error.TOO_MANY, what=what, seconds=math.ceil(seconds))
    problem.retry_after = math.ceil(seconds)
    return problem
