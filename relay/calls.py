"""Commands to Redis, repeated while it fails in passing.

A reply can be lost after the command was carried out, so whatever is sent through here must bear repeating: scripts
compare ids, and stream entries carry their offsets as IDs.  No redis exception leaves this module.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from importlib.resources import files
from typing import Any, Self, TypeVar

from redis.exceptions import OutOfMemoryError, RedisError, ResponseError

from relay.clients import COMMAND_TIMEOUT, PASSING, Clients, connect
from relay.errors import Error, StoreUnavailable
from relay.keys import Keys
from relay.metrics import Metrics
from relay.settings import Settings

log = logging.getLogger("relay.store")

T = TypeVar("T")


class Calls:
    """One per process.  `connect` makes it; close it with `aclose`."""

    def __init__(self, settings: Settings, clients: Clients) -> None:
        self.settings = settings
        self.keys = Keys(settings.prefix)
        self.metrics = Metrics()
        self._clients = clients
        self.commands = clients.commands
        self.blocking = clients.blocking
        self._turns = asyncio.Semaphore(settings.redis_connections)
        #: When Redis last answered anybody, in the event loop's seconds.
        self._answered = float("-inf")
        self._scripts = {name: clients.commands.register_script(source) for name, source in _sources().items()}

    @classmethod
    def connect(cls, settings: Settings) -> Self:
        """Clients for `settings.redis_url`; connects at the first command, not here."""
        return cls(settings, connect(settings))

    async def drop_idle(self) -> None:
        """Closes the connections that nobody uses just now: where one has broken, they are likely to have, too."""
        await self._clients.drop_idle()

    async def aclose(self) -> None:
        await self._clients.aclose()

    async def run(
        self, verb: str, keys: Sequence[str], arguments: Sequence[str | int], *, patience: float | None = None
    ) -> Any:
        """Runs the script of a verb on one of the shared connections.  Raises StoreUnavailable."""
        script = self._scripts[verb]
        return await self.call(lambda: script(keys=keys, args=arguments), patience=patience)

    async def call(self, command: Callable[[], Awaitable[T]], *, patience: float | None = None) -> T:
        """Runs a command on one of the shared connections.  Raises StoreUnavailable."""
        patience = self.settings.redis_patience if patience is None else patience
        since = await self._turn(patience)
        try:
            return await self.repeat(command, patience=patience, since=since)
        finally:
            self._turns.release()

    async def _turn(self, patience: float) -> float:
        """Waits for one of the shared connections, for as long as Redis answers those before us.

        A crowd that gave up sooner would begin again together, and get nowhere: of 10,000 uploaders that left
        at once, half kept their names for minutes.  Answers since when `patience` counts, in the event loop's
        seconds.  Raises StoreUnavailable where Redis has answered nobody for `patience` seconds.
        """
        loop = asyncio.get_running_loop()
        begun = loop.time()
        while (left := max(begun, self._answered) + patience - loop.time()) > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._turns.acquire()
                    return max(begun, self._answered)
        raise StoreUnavailable

    async def repeat(
        self,
        command: Callable[[], Awaitable[T]],
        *,
        patience: float,
        blocks: float = 0,
        since: float | None = None,
    ) -> T:
        """Runs the command, and again where Redis failed in passing, for `patience` seconds from `since` or now.

        One attempt may take `COMMAND_TIMEOUT`, or what is left of the patience, beyond the seconds it
        `blocks` by itself.  Raises StoreUnavailable.
        """
        loop = asyncio.get_running_loop()
        begun, pause, full = loop.time() if since is None else since, 0.02, False
        while True:
            left = begun + patience - loop.time()
            sent = loop.time()
            limit = blocks + (min(COMMAND_TIMEOUT, left) if patience else COMMAND_TIMEOUT)
            try:
                async with asyncio.timeout(limit):
                    answer = await command()
                self._answered = loop.time()
                if not blocks:
                    self.metrics.redis_seconds.observe(loop.time() - sent)
                return answer
            except (*PASSING, RedisError) as error:
                self.metrics.redis_errors.labels(type(error).__name__).inc()
                full = is_out_of_memory(error) or (full and isinstance(error, TimeoutError))
                if not full and not isinstance(error, PASSING):
                    # Ours or the operator's to mend (no permission, wrong type, a bug), so it is said in the log.
                    log.error("Redis refused a command: %s: %s", type(error).__name__, error)
                    raise StoreUnavailable from error
                # What it took beyond its limit we stood still ourselves (SIGSTOP, a suspended machine): perhaps Redis
                # has answered long since.
                begun += max(0.0, loop.time() - sent - limit)
                if loop.time() + pause >= begun + patience:
                    raise StoreUnavailable(Error.STORE_FULL if full else Error.STORE_DOWN) from error
            await asyncio.sleep(pause)
            pause = min(2 * pause, 0.5)


def _sources() -> dict[str, str]:
    """The scripts, by verb; those named here get the shared functions they use put before them."""
    folder = files("relay") / "lua"
    source_of = {
        item.name.removesuffix(".lua"): item.read_text() for item in folder.iterdir() if item.name.endswith(".lua")
    }
    shared = {
        "claim": ["_use", "_room"],
        "look": ["_use"],
        "want": ["_room"],
        "end": ["_last", "_mark"],
        "touch": ["_last"],
    }
    return {
        verb: "".join(source_of[name] for name in shared.get(verb, [])) + source
        for verb, source in source_of.items()
        if not verb.startswith("_")
    }


def ms(seconds: float) -> int:
    """Whole milliseconds, never 0: a BLOCK of 0 waits for ever, a PEXPIRE of 0 deletes."""
    return max(1, round(seconds * 1000))


def text(fields: Mapping[bytes, bytes]) -> dict[str, str]:
    return {key.decode(): value.decode() for key, value in fields.items()}


def result(value: Any) -> Any:
    """A pipeline's result, raised if it is an error."""
    if isinstance(value, Exception):
        raise value
    return value


def is_refused_id(value: Any) -> bool:
    """Whether a stream has an entry with this ID, or a higher one, already."""
    return isinstance(value, ResponseError) and "equal or smaller" in str(value)


def is_out_of_memory(value: Any) -> bool:
    """Whether Redis had no memory left for it; from a script, Redis 6.2 says so only in the error's text."""
    return isinstance(value, OutOfMemoryError) or (isinstance(value, ResponseError) and "OOM command" in str(value))
