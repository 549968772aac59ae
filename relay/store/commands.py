"""Commands to Redis, repeated while it fails in passing.

A reply can be lost after the command was carried out, so whatever is sent through here must bear repeating: scripts
compare ids, and stream entries carry their offsets as IDs.  No redis exception leaves this module.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Self, TypeVar

from redis.exceptions import NoScriptError, OutOfMemoryError, RedisError, ResponseError

from relay.errors import Error, StoreUnavailable
from relay.metrics import Metrics
from relay.settings import Settings
from relay.store.connections import Wires
from relay.store.keys import Keys
from relay.store.redis_py import COMMAND_TIMEOUT, PASSING, Clients, connect
from relay.store.resp import Command
from relay.store.scripts import Script, sources

log = logging.getLogger("relay.store")

T = TypeVar("T")
#: Sends commands about a key: `Wires.share` or `Wires.call`.
Send = Callable[[str, Sequence[Command]], Awaitable[list[Any]]]


class Calls:
    """One per process.  `connect` makes it; close it with `aclose`."""

    def __init__(self, settings: Settings, clients: Clients) -> None:
        self.settings = settings
        self.keys = Keys(settings.prefix)
        self.metrics = Metrics()
        self._clients = clients
        self.commands = clients.commands
        self.wires = Wires(clients.commands)
        self._turns = asyncio.Semaphore(settings.redis_commands)
        #: When Redis last answered anybody, in the event loop's seconds.
        self._answered = float("-inf")
        self._scripts = {verb: Script(source) for verb, source in sources().items()}

    @classmethod
    def connect(cls, settings: Settings) -> Self:
        """Clients for `settings.redis_url`; connects at the first command, not here."""
        return cls(settings, connect(settings))

    async def drop_idle(self) -> None:
        """Closes the connections that nobody uses just now: where one has broken, they are likely to have, too."""
        self.wires.close_idle()
        await self._clients.drop_idle()

    async def aclose(self) -> None:
        self.wires.close_idle()
        await self._clients.aclose()

    async def run(
        self, verb: str, keys: Sequence[str], arguments: Sequence[str | int], *, patience: float | None = None
    ) -> Any:
        """Runs the script of a verb, over the shared connection.  Raises StoreUnavailable."""
        return await self.call(lambda: self.evaluate(verb, keys, arguments, self.wires.share), patience=patience)

    async def ask(self, *commands: Command, patience: float | None = None) -> list[Any]:
        """Sends commands about one key, over the shared connection.  Raises StoreUnavailable."""
        key = str(commands[0][1])

        async def ask() -> list[Any]:
            return [result(reply) for reply in await self.wires.share(key, commands)]

        return await self.call(ask, patience=patience)

    async def evaluate(self, verb: str, keys: Sequence[str], arguments: Sequence[str | int], send: Send) -> Any:
        """Runs the script of a verb once.  Raises what redis-py does."""
        script, about = self._scripts[verb], (len(keys), *keys, *arguments)
        (reply,) = await send(keys[0], [("EVALSHA", script.sha, *about)])
        if isinstance(reply, NoScriptError):
            (reply,) = await send(keys[0], [("EVAL", script.source, *about)])
        return result(reply)

    async def call(self, command: Callable[[], Awaitable[T]], *, patience: float | None = None) -> T:
        """Runs a command when it is its turn.  Raises StoreUnavailable."""
        patience = self.settings.redis_patience if patience is None else patience
        since = await self._turn(patience)
        try:
            return await self.repeat(command, patience=patience, since=since)
        finally:
            self._turns.release()

    async def _turn(self, patience: float) -> float:
        """Waits until one of the commands under way is over, for as long as Redis answers those before us.

        A crowd that gave up sooner would begin again together, and get nowhere: of 10,000 uploaders that left
        at once, half kept their names for minutes.  Answers since when `patience` counts, in the event loop's
        seconds.  Raises StoreUnavailable where Redis has answered nobody for `patience` seconds.
        """
        loop = asyncio.get_running_loop()
        begun = loop.time()
        if not self._turns.locked():
            await self._turns.acquire()
            return begun
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
                if isinstance(error, TimeoutError):
                    self.wires.drop_silent(sent)
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


def ms(seconds: float) -> int:
    """Whole milliseconds, never 0: a BLOCK of 0 waits for ever, a PEXPIRE of 0 deletes."""
    return max(1, round(seconds * 1000))


def text(fields: Mapping[bytes, bytes]) -> dict[str, str]:
    return {key.decode(): value.decode() for key, value in fields.items()}


def result(value: Any) -> Any:
    """A command's reply, raised if it is an error."""
    if isinstance(value, Exception):
        raise value
    return value


def is_refused_id(value: Any) -> bool:
    """Whether a stream has an entry with this ID, or a higher one, already."""
    return isinstance(value, ResponseError) and "equal or smaller" in str(value)


def is_out_of_memory(value: Any) -> bool:
    """Whether Redis had no memory left for it; from a script, Redis 6.2 says so only in the error's text."""
    return isinstance(value, OutOfMemoryError) or (isinstance(value, ResponseError) and "OOM command" in str(value))
