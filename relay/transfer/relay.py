"""What a node does for its clients: the operations behind the addresses."""

import contextlib
import math
from collections.abc import AsyncIterator, Sequence

from limits import RateLimitItem

from relay.cluster.node import Node
from relay.credentials import matches
from relay.errors import Error, Problem, StoreUnavailable
from relay.logs import note
from relay.metrics import Metrics
from relay.names import new_token
from relay.server.connection import Connection
from relay.settings import Settings
from relay.states import Answer, Outcome
from relay.store.rates import Rate, parse_rate
from relay.store.records import Final
from relay.store.store import Store
from relay.transfer.context import Context
from relay.transfer.download import Download, Sink
from relay.transfer.finding import Finder
from relay.transfer.upload import Upload


class Relay:
    """One for each process."""

    def __init__(self, settings: Settings, store: Store, metrics: Metrics, node: Node) -> None:
        self.settings = settings
        self.store = store
        self.metrics = metrics
        self.node = node
        self.context = Context(settings, store, metrics, node)
        self.gate = self.context.gate
        self._secrets = [secret for secret in settings.token_secret.split(",") if secret]
        self._tokens = _limit(Rate.TOKENS, settings.token_rate)
        self._failures = _limit(Rate.FAILURES, settings.failure_rate)

    async def admit(self, credentials: Sequence[str], *, address: str) -> None:
        """Raises Problem unless a token may be made by whoever presents `credentials`."""
        if self._secrets:
            await self.refuse_guessers(address=address)
            if not matches(credentials, self._secrets):
                raise Problem(Error.SECRET_NEEDED)
        if self._tokens and (seconds := await self.store.rates.spend(*self._tokens, address=address)):
            raise _too_many("tokens", seconds)

    async def refuse_guessers(self, *, address: str) -> None:
        """Raises Problem(TOO_MANY) for who has presented too many wrong tokens or secrets.

        Whoever guesses secrets is not listened to any more, even if the next guess were right.
        """
        if self._failures and (seconds := await self.store.rates.is_spent(*self._failures, address=address)):
            raise _too_many("refusals", seconds)

    async def limit_failures(self, problem: Problem, *, address: str) -> Problem:
        """Counts a wrong token or secret.  Answers what to tell the client: that, or that it was one too many.

        A right token is let in regardless: it cannot be guessed, and its owner may share the address with
        whoever tries.  So where Redis is away nothing is lost by not counting.
        """
        if self._failures and problem.error in (Error.UNKNOWN_TOKEN, Error.SECRET_NEEDED, Error.OPERATORS_ONLY):
            with contextlib.suppress(StoreUnavailable):
                if seconds := await self.store.rates.spend(*self._failures, address=address):
                    return _too_many("refusals", seconds)
        return problem

    async def make_token(self) -> str:
        """Return a new token. Raise Problem."""
        with self.gate.entered():
            token = new_token()
            await self.store.tokens.make(token=token)
            self.node.load.used_tokens.add(token)
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
        """Wait for a downloader, and stream `body` to it. Return the bytes sent, all of which have arrived.

        Raise Problem; or ClientGone if there is nobody left to answer.
        """
        transfer = self.store.transfers.identify(token=token, name=name)
        upload = Upload(self.context, transfer, body, client)
        try:
            largest = await self._max_size(token, length or 0)
            note(transfer=transfer.id)
            with self.gate.entered():
                return await upload.run(length=length, media_type=media_type, most=largest)
        except Problem as problem:
            if length is None and upload.has_begun:  # it may come from a pipe
                problem.forbid_retry()
            raise

    async def download(self, *, token: str, name: str, wait: float, sink: Sink, client: Connection) -> Outcome:
        """Wait up to `wait` seconds for an upload, and stream it to `sink`. Return how it ended.

        Raise Problem if nothing was sent; or ClientGone if there is nobody left to answer.
        """
        with self.gate.entered():
            finder = Finder(self.context, token=token, name=name, wait=wait, client=client)
            with finder.running():
                while True:
                    transfer = await finder.find()
                    sink.check(transfer)
                    if joiner := await finder.join(transfer):
                        note(transfer=transfer.id)
                        outcome = await Download(self.context, transfer, joiner, sink, client).run()
                        if sink.begun or outcome is not Outcome.UPLOADER_GONE:
                            return outcome
                    finder.check_client()

    async def cancel(self, *, token: str, name: str) -> bool:
        """End the live transfer of a name, for both sides. Return False if there is none.

        Raise Problem(UNKNOWN_TOKEN), or Problem(TOO_LATE) if the downloader has been handed the last bytes.
        """
        transfer = await self.store.transfers.look(token=token, name=name, use=False)
        if transfer is None:
            return False
        answer = await self.context.endings.end(transfer, Outcome.CANCELLED)
        if answer is Answer.KEPT:
            raise Problem(Error.TOO_LATE)
        return isinstance(answer, Final)

    async def revoke(self, *, token: str) -> None:
        """Delete a token and end its transfers, except those whose downloaders have been handed the last bytes.

        Raise Problem(UNKNOWN_TOKEN).
        """
        transfers = await self.store.tokens.revoke(token=token)
        if transfers is None:
            raise Problem(Error.UNKNOWN_TOKEN)
        self.node.load.used_tokens.add(token)
        for name, transfer_id in transfers:
            transfer = self.store.transfers.identify(token=token, name=name, transfer_id=transfer_id)
            await self.context.endings.end(transfer, Outcome.REVOKED)

    async def _max_size(self, token: str, length: int) -> int:
        """Return the maximum size of an upload that has at least `length` bytes; 0 means unlimited. Raise Problem.

        Each upload of a token may use all that the token has left: bytes are counted when an upload ends.
        """
        largest, token_bytes = self.settings.max_upload, self.settings.token_bytes
        if 0 < largest < length:
            raise Problem(Error.TOO_LARGE, most=largest)
        if token_bytes:
            left = max(0, token_bytes - await self.store.tokens.delivered(token=token))
            if left < max(1, length):
                raise Problem(Error.SPENT, most=left)
            largest = min(largest or left, left)
        return largest


def _limit(what: Rate, text: str) -> tuple[Rate, RateLimitItem] | None:
    rate = parse_rate(text)
    return (what, rate) if rate is not None else None


def _too_many(what: str, seconds: float) -> Problem:
    problem = Problem(Error.TOO_MANY, what=what, seconds=math.ceil(seconds))
    problem.retry_after = math.ceil(seconds)
    return problem
