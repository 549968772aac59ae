"""Run commands on Redis, and repeat them while Redis fails in passing.

A reply can be lost after its command was carried out, so everything sent through here must be safe to repeat: scripts
compare ids, and stream entries carry their offsets as IDs. No redis-py exception leaves this module.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from redis.exceptions import NoScriptError, ResponseError

from relay.buffers import Bytes
from relay.errors import Error, StoreUnavailable
from relay.metrics import Metrics
from relay.settings import Settings
from relay.store.clock import Clock
from relay.store.complaints import Complaints
from relay.store.connections import Connections
from relay.store.failures import RAISED, Kind, failure_of
from relay.store.keys import Keys
from relay.store.redis_py import COMMAND_TIMEOUT, RedisPy
from relay.store.resp import Command
from relay.store.scripts import load_scripts
from relay.store.turns import Turns
from relay.tasks import Limit

T = TypeVar("T")
#: Sends commands about a key, and returns their replies: `Connections.share` or `Connections.call`.
Send = Callable[[str, Sequence[Command]], Awaitable[list[Any]]]


class Caller:
    """The caller of a verb that must not be carried out once it has given up."""

    def __init__(self, gives_up: float = 0.0) -> None:
        #: When it gives up, in the event loop's seconds.
        self.gives_up = gives_up


class Commands:
    """Runs the commands of one process. Close it with `aclose`."""

    def __init__(self, settings: Settings, metrics: Metrics, redis_py: RedisPy) -> None:
        self.settings = settings
        self.keys = Keys(settings.prefix)
        #: redis-py's own object, for what is asked rarely: pipelines over many keys, and scans.
        self.redis = redis_py.redis
        self.connections = Connections(redis_py)
        self._metrics = metrics
        self._redis_py = redis_py
        self._turns = Turns(settings.redis_commands)
        #: When Redis last replied to any command, in the event loop's seconds.
        self._answered = float("-inf")
        self._scripts = load_scripts()
        self._clock = Clock()
        self._complaints = Complaints(settings.redis_url)

    @property
    def is_embedded(self) -> bool:
        """Whether Redis is inside this process."""
        return self._redis_py.is_embedded

    async def info(self) -> list[dict[str, Any]]:
        """Return INFO of each master. Raise what redis-py raises."""
        return await self._redis_py.info()

    async def close_idle(self) -> None:
        """Close the connections that are idle. When one connection has broken, they probably have, too."""
        self.connections.close_idle()
        await self._redis_py.close_idle()

    async def aclose(self) -> None:
        """Close all connections."""
        self.connections.close_idle()
        await self._redis_py.aclose()

    def run(
        self, verb: str, keys: Sequence[str], arguments: Sequence[str | int], *, patience: float | None = None
    ) -> Awaitable[Any]:
        """Run the script of a verb over the shared connection, and return its reply. Raise StoreUnavailable."""
        caller, insists = Caller(), self._scripts[verb].insists
        command = partial(self.evaluate, verb, keys, arguments, self.connections.share, caller=caller)
        return self.call(command, patience=patience, caller=caller, insists=insists)

    def ask(self, *commands: Command, patience: float | None = None) -> Awaitable[list[Any]]:
        """Send commands about one key over the shared connection, and return their replies. Raise StoreUnavailable."""
        return self.call(partial(self._ask, commands), patience=patience)

    async def _ask(self, commands: Sequence[Command]) -> list[Any]:
        return [result(reply) for reply in await self.connections.share(str(commands[0][1]), commands)]

    async def evaluate(
        self,
        verb: str,
        keys: Sequence[str],
        arguments: Sequence[str | int],
        send: Send,
        *,
        caller: "Caller | None" = None,
    ) -> Any:
        """Run the script of a verb once. Raise what redis-py raises, or TimeoutError.

        Redis refuses a verb that must not be carried out after its caller has given up.
        """
        script, loop = self._scripts[verb], asyncio.get_running_loop()
        caller = caller or Caller(loop.time() + COMMAND_TIMEOUT)
        about: list[str | int] = [len(keys), *keys, *arguments]
        command, code = "EVALSHA", script.sha
        if script.expires:
            server = (self._redis_py.only or await self._redis_py.locate(keys[0])).name
            about.append(self._clock.deadline(server, caller.gives_up))
        while True:
            (reply,) = await send(keys[0], [(command, code, *about)])
            if isinstance(reply, NoScriptError) and code is script.sha:
                command, code = "EVAL", script.source
            elif script.expires and isinstance(reply, list) and reply[0] == b"late":
                # It is late by what we knew of Redis's clock. Now we know better.
                self._clock.learn(server, int(reply[1]), now=loop.time())
                if loop.time() >= caller.gives_up:
                    raise TimeoutError
                about[-1] = self._clock.deadline(server, caller.gives_up)
            else:
                return result(reply)

    def command(self, verb: str, keys: Sequence[str], arguments: Sequence[str | int | Bytes]) -> Command:
        """Return the command that runs the script of a verb, for one round trip with a command behind it that blocks.

        It has the source of the script: if Redis did not know its digest, that would show only after the other command
        has blocked.
        """
        return "EVAL", self._scripts[verb].source, len(keys), *keys, *arguments

    async def server_of(self, key: str) -> str:
        """Return the name of the server that has the key; an empty one if that is not known now."""
        try:
            return (await self._redis_py.locate(key)).name
        except RAISED:
            return ""

    async def learn_time(self, key: str, now_ms: int) -> None:
        """Record that the server which has the key has just told us its time, in Unix milliseconds."""
        server = await self._redis_py.locate(key)
        self._clock.learn(server.name, now_ms, now=asyncio.get_running_loop().time())

    async def call(
        self,
        command: Callable[[], Awaitable[T]],
        *,
        patience: float | None = None,
        caller: "Caller | None" = None,
        insists: bool = False,
    ) -> T:
        """Run a command when it is its turn. Raise StoreUnavailable.

        `patience`: seconds to keep trying; by default those for a new request.
        """
        patience = self.settings.redis_patience if patience is None else patience
        since = asyncio.get_running_loop().time() if self._turns.take() else await self._turn(patience)
        try:
            return await self.repeat(command, patience=patience, since=since, caller=caller, insists=insists)
        finally:
            self._turns.release()

    async def _turn(self, patience: float) -> float:
        """Wait for a turn, for as long as Redis replies to the commands before this one.

        Return the time from which `patience` counts, in the event loop's seconds. Raise StoreUnavailable if Redis has
        replied to no command for `patience` seconds.

        A crowd of commands that gave up sooner would all be sent again together, and get nowhere: when 10,000
        uploaders left at once, half of them kept their names for minutes.
        """
        loop = asyncio.get_running_loop()
        begun = loop.time()
        while (left := max(begun, self._answered) + patience - loop.time()) > 0:
            with contextlib.suppress(TimeoutError), Limit(left):
                await self._turns.wait()
                return max(begun, self._answered)
        raise StoreUnavailable

    async def repeat(
        self,
        command: Callable[[], Awaitable[T]],
        *,
        patience: float,
        blocks: float = 0,
        since: float | None = None,
        caller: "Caller | None" = None,
        insists: bool = False,
    ) -> T:
        """Run a command, and repeat it while Redis fails in passing. Raise StoreUnavailable.

        It is repeated for `patience` seconds, counted from `since` (in the event loop's seconds) or from now. One
        attempt may take `COMMAND_TIMEOUT`, or what is left of the patience, in addition to the seconds that the
        command `blocks` by itself. A command that `insists` is repeated after final failures, too. Before each attempt,
        `caller` gets to know when the patience will be over.
        """
        loop = asyncio.get_running_loop()
        begun, pause, full = loop.time() if since is None else since, 0.02, False
        while True:
            sent = loop.time()
            if caller is not None:
                caller.gives_up = begun + patience
            limit = blocks + (min(COMMAND_TIMEOUT, begun + patience - sent) if patience else COMMAND_TIMEOUT)
            try:
                with Limit(limit):
                    answer = await command()
                self._answered = loop.time()
                if not blocks:
                    self._metrics.redis_seconds.observe(self._answered - sent)
                return answer
            except RAISED as error:
                kind = self._failed(error, sent)
                full = kind is Kind.FULL or (full and isinstance(error, TimeoutError))
                # If it took longer than its limit, this process stood still itself, and Redis may have replied long
                # ago. That time does not use up the patience.
                begun += max(0.0, loop.time() - sent - limit)
                if loop.time() + pause >= begun + patience or (kind is Kind.FINAL and not insists):
                    if patience:  # without it, the caller repeats the command itself
                        self._complaints.add(error)
                    raise StoreUnavailable(Error.STORE_FULL if full else Error.STORE_DOWN) from error
            await asyncio.sleep(pause)
            pause = min(2 * pause, 0.5)

    def _failed(self, error: Exception, sent: float) -> Kind:
        """Record the failure of an attempt that began at `sent`, in the event loop's seconds. Return its kind."""
        failure = failure_of(error)
        self._metrics.redis_errors.labels(failure.word).inc()
        if isinstance(error, TimeoutError):
            self.connections.drop_silent(sent)
        if (
            failure.kind is not Kind.PASSING
        ):  # it matters at once: running uploads are held back, or somebody has to act
            self._complaints.add(error)
        return failure.kind


def ms(seconds: float) -> int:
    """Return whole milliseconds, at least 1: a BLOCK of 0 waits for ever, and a PEXPIRE of 0 deletes the key."""
    return max(1, round(seconds * 1000))


def text(fields: Mapping[bytes, bytes]) -> dict[str, str]:
    """Decode the names and values of a hash."""
    return {key.decode(): value.decode() for key, value in fields.items()}


def result(value: Any) -> Any:
    """Return a command's reply, or raise it if it is an error."""
    if isinstance(value, Exception):
        raise value
    return value


def is_refused_id(value: Any) -> bool:
    """Return whether XADD was refused because the stream already has this ID or a higher one."""
    return isinstance(value, ResponseError) and "equal or smaller" in str(value)


def is_out_of_memory(value: Any) -> bool:
    """Return whether Redis refused a command for lack of memory."""
    return isinstance(value, Exception) and failure_of(value).kind is Kind.FULL


def pairs(flat: Sequence[bytes]) -> dict[str, str]:
    """Decode the fields of a hash as a script returns them: a list of names, each followed by its value."""
    return {flat[i].decode(): flat[i + 1].decode() for i in range(0, len(flat), 2)}
