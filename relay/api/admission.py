"""Decide whether a request may have what it asks for: the secret for new tokens, and the limits on each address."""

import asyncio
import contextlib
import logging
import math
import os
import signal
import threading
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from relay.credentials import matches
from relay.errors import Error, Problem, StoreUnavailable
from relay.rates import Rate, parse_rate
from relay.secrets_file import NamedSecret, find_secret, read_secrets
from relay.settings import Settings
from relay.store.rates import Counted
from relay.store.records import UNLIMITED, Grant
from relay.store.store import Store
from relay.tasks import beside

log = logging.getLogger("relay")

_STDIN = 0
#: Seconds between two looks whether the file of named secrets has changed.
_LOOK = 2.0

#: Errors that mean that a client presented a wrong token or secret, and may be guessing.
_WRONG_GUESSES = (Error.UNKNOWN_TOKEN, Error.SECRET_NEEDED, Error.OPERATORS_ONLY)


class Admission:
    """The secrets and rate limits of one app. `address` is always the client's address as `counted_as` returns it."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self._store = store
        self._is_guarded = settings.is_guarded
        self._secrets = [secret for secret in settings.token_secret.split(",") if secret]
        self._file = Path(settings.token_secrets_file) if settings.token_secrets_file else None
        self._named: dict[str, NamedSecret] = read_secrets(self._file) if self._file else {}
        self._seen = _stamp(self._file)
        self._token_rate = parse_rate(settings.token_rate)
        self._failure_rate = parse_rate(settings.failure_rate)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Read the file of named secrets again when it changes, and on SIGHUP."""
        loop = asyncio.get_running_loop()
        # Only the main thread gets signals, and a test may run the app in another one. Without a file, SIGHUP would end
        # the node without a drain. That is right only at a terminal, which sends it when it is closed.
        is_main = threading.current_thread() is threading.main_thread()
        hears = is_main and (self._file is not None or not os.isatty(_STDIN))
        if hears:
            loop.add_signal_handler(signal.SIGHUP, self.reload)
        try:
            async with beside(self._watch_for_ever()):
                yield
        finally:
            if hears:
                loop.remove_signal_handler(signal.SIGHUP)

    async def _watch_for_ever(self) -> None:
        while self._file is not None:
            await asyncio.sleep(_LOOK)
            if _stamp(self._file) != self._seen:
                self.reload()

    def reload(self) -> None:
        """Read the file of named secrets again. If it is bad, say so in the log, and keep what was read before."""
        if self._file is None:
            log.info("SIGHUP: there is nothing to read again, because RELAY_TOKEN_SECRETS_FILE is not set")
            return
        self._seen = _stamp(self._file)
        try:
            self._named = read_secrets(self._file)
        except ValueError as error:
            log.error("RELAY_TOKEN_SECRETS_FILE: %s: mend it; until then the secrets read before are used", error)
        else:
            log.info("RELAY_TOKEN_SECRETS_FILE: read again, %d of its secrets are good", self._count())

    def _count(self) -> int:
        now = datetime.now(UTC)
        return sum(not secret.is_over(now) for secret in self._named.values())

    async def admit(self, credentials: Sequence[str], *, address: str) -> Grant:
        """Count one new token for the address, and return what it may do. Raise Problem if the client may not make one.

        Secrets of RELAY_TOKEN_SECRET limit nothing.
        """
        named = None
        if self._is_guarded:
            await self.refuse_guessers(address=address)
            named = find_secret(credentials, self._named, datetime.now(UTC))
            if not matches(credentials, self._secrets) and named is None:
                raise Problem(Error.SECRET_NEEDED)
        if seconds := await self._spend(Counted.TOKENS, self._token_rate, address):
            raise _too_many("tokens for your address", seconds)
        if named is None:
            return UNLIMITED
        name, secret = named
        if seconds := await self._spend(Counted.SECRETS, parse_rate(secret.rate), name):
            raise _too_many("tokens for this secret", seconds)
        return Grant(name, life=secret.life, names=secret.names, bytes=secret.bytes, upload=secret.upload)

    async def refuse_guessers(self, *, address: str) -> None:
        """Raise Problem(TOO_MANY) if the address has presented too many wrong tokens or secrets.

        Its next secret is not even compared: a right guess would otherwise be let in after any number of wrong ones.
        """
        rate = self._failure_rate
        if rate and (seconds := await self._store.rates.is_spent(Counted.FAILURES, rate, address=address)):
            raise _too_many("refusals of your address", seconds)

    async def count_failure(self, problem: Problem, *, address: str) -> Problem:
        """Count a wrong token or secret. Return the problem to report: this one, or TOO_MANY after too many.

        A right token is always let in: it cannot be guessed, and its owner may share an address with someone who
        tries to. Failures that are not counted while Redis is away therefore give nothing away.
        """
        if problem.error in _WRONG_GUESSES:
            with contextlib.suppress(StoreUnavailable):
                if seconds := await self._spend(Counted.FAILURES, self._failure_rate, address):
                    return _too_many("refusals of your address", seconds)
        return problem

    async def _spend(self, what: Counted, rate: Rate | None, address: str) -> float:
        """Count one of `what`. Return 0, or the seconds to wait if the address has none left."""
        return await self._store.rates.spend(what, rate, address=address) if rate else 0.0


def _too_many(what: str, seconds: float) -> Problem:
    problem = Problem(Error.TOO_MANY, what=what, seconds=math.ceil(seconds))
    problem.retry_after = math.ceil(seconds)
    return problem


def _stamp(file: Path | None) -> tuple[int, ...]:
    """Return what tells one version of a file from another; empty if it is not there."""
    try:
        found = file.stat() if file else None
    except OSError:
        return ()
    return (found.st_ino, found.st_mtime_ns, found.st_size) if found else ()
