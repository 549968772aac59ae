"""Decide whether a request may have what it asks for: the secret for new tokens, and the limits on each address."""

import contextlib
import math
from collections.abc import Sequence

from relay.credentials import matches
from relay.errors import Error, Problem, StoreUnavailable
from relay.rates import Rate, parse_rate
from relay.settings import Settings
from relay.store.rates import Counted
from relay.store.store import Store

#: Errors that mean that a client presented a wrong token or secret, and may be guessing.
_WRONG_GUESSES = (Error.UNKNOWN_TOKEN, Error.SECRET_NEEDED, Error.OPERATORS_ONLY)


class Admission:
    """The secrets and rate limits of one app. `address` is always the client's address as `counted_as` returns it."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self._store = store
        self._secrets = [secret for secret in settings.token_secret.split(",") if secret]
        self._token_rate = parse_rate(settings.token_rate)
        self._failure_rate = parse_rate(settings.failure_rate)

    async def admit(self, credentials: Sequence[str], *, address: str) -> None:
        """Count one new token for the address. Raise Problem if the client may not make one."""
        if self._secrets:
            await self.refuse_guessers(address=address)
            if not matches(credentials, self._secrets):
                raise Problem(Error.SECRET_NEEDED)
        if seconds := await self._spend(Counted.TOKENS, self._token_rate, address):
            raise _too_many("tokens", seconds)

    async def refuse_guessers(self, *, address: str) -> None:
        """Raise Problem(TOO_MANY) if the address has presented too many wrong tokens or secrets.

        Its next secret is not even compared: a right guess would otherwise be let in after any number of wrong ones.
        """
        rate = self._failure_rate
        if rate and (seconds := await self._store.rates.is_spent(Counted.FAILURES, rate, address=address)):
            raise _too_many("refusals", seconds)

    async def count_failure(self, problem: Problem, *, address: str) -> Problem:
        """Count a wrong token or secret. Return the problem to report: this one, or TOO_MANY after too many.

        A right token is always let in: it cannot be guessed, and its owner may share an address with someone who
        tries to. Failures that are not counted while Redis is away therefore give nothing away.
        """
        if problem.error in _WRONG_GUESSES:
            with contextlib.suppress(StoreUnavailable):
                if seconds := await self._spend(Counted.FAILURES, self._failure_rate, address):
                    return _too_many("refusals", seconds)
        return problem

    async def _spend(self, what: Counted, rate: Rate | None, address: str) -> float:
        """Count one of `what`. Return 0, or the seconds to wait if the address has none left."""
        return await self._store.rates.spend(what, rate, address=address) if rate else 0.0


def _too_many(what: str, seconds: float) -> Problem:
    problem = Problem(Error.TOO_MANY, what=what, seconds=math.ceil(seconds))
    problem.retry_after = math.ceil(seconds)
    return problem
