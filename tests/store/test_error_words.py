"""States of Redis that pass, each produced by a real server of its own: a script that keeps it busy, a start with much
data, a disk that cannot be written to, and a Redis Cluster that lacks a slot or moves one."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import redis

from relay.settings import Settings
from relay.store.commands import Commands, result
from relay.store.failures import RAISED, Kind, failure_of
from relay.store.resp import Command
from relay.store.store import Store
from tests.support.redis import RedisServer, cluster_of_two, newest, servers
from tests.support.wait import wait_until

#: What brings a server into a state, and what ends it.
Switch = Callable[[], object]
State = Callable[[Path], AbstractContextManager[tuple[RedisServer, Switch, Switch]]]

#: The slot of the keys of the hash tag {t}.
SLOT = 15891


@pytest.fixture(params=sorted(servers()) or [()], ids=lambda version: ".".join(map(str, version)))
def program(request: pytest.FixtureRequest) -> Path:
    return servers().get(request.param) or newest("the states of Redis that pass were not tested")


def run(server: RedisServer, *command: str | int) -> Any:
    with server.client() as client:
        return client.execute_command(*command)


@contextlib.contextmanager
def busy(program: Path) -> Iterator[tuple[RedisServer, Switch, Switch]]:
    """Somebody's script runs for ever."""
    with RedisServer(program, "--lua-time-limit", "10") as server:

        def loop() -> None:
            with contextlib.suppress(redis.RedisError):
                run(server, "EVAL", "while true do end", 0)

        looping = threading.Thread(target=loop)
        yield server, looping.start, lambda: run(server, "SCRIPT", "KILL")
        looping.join()


@contextlib.contextmanager
def loading(program: Path) -> Iterator[tuple[RedisServer, Switch, Switch]]:
    """It has been started again, and loads its data for two seconds. It replies once in 2 MB of that."""
    with RedisServer(program, "--key-load-delay", "1000", "--rdbcompression", "no") as server:
        run(server, "EVAL", "for i = 1, 2000 do redis.call('SET', i, string.rep('x', 8192)) end", 0)
        starting = threading.Thread(target=server.roll_back, args=[server.snapshot()])
        yield server, starting.start, starting.join


@contextlib.contextmanager
def unsaved(program: Path) -> Iterator[tuple[RedisServer, Switch, Switch]]:
    """It cannot save its data."""
    with RedisServer(program) as server:

        def save(expected: str) -> None:
            run(server, "BGSAVE")
            wait_until(lambda: run(server, "INFO", "persistence")["rdb_last_bgsave_status"] == expected, expected)

        def begin() -> None:
            server.dump.mkdir()  # no file can take the place of a folder
            run(server, "CONFIG", "SET", "save", "3600 1000000")
            save("err")

        def end() -> None:
            server.dump.rmdir()
            save("ok")

        yield server, begin, end


@contextlib.contextmanager
def lacking_a_slot(program: Path) -> Iterator[tuple[RedisServer, Switch, Switch]]:
    """Nobody serves a slot of the cluster."""
    with cluster_of_two(program) as (one, two):

        def begin() -> None:
            for each in (one, two):
                run(each, "CLUSTER", "DELSLOTS", SLOT)

        yield two, begin, lambda: run(two, "CLUSTER", "ADDSLOTS", SLOT)


@contextlib.contextmanager
def moving_a_slot(program: Path) -> Iterator[tuple[RedisServer, Switch, Switch]]:
    """A slot is about to move to another master, which has nothing of it yet. At the end, that is called off."""
    with cluster_of_two(program) as (one, two):

        def begin() -> None:
            run(two, "SET", "{t}here", "x")
            run(one, "CLUSTER", "SETSLOT", SLOT, "IMPORTING", run(two, "CLUSTER", "MYID"))
            run(two, "CLUSTER", "SETSLOT", SLOT, "MIGRATING", run(one, "CLUSTER", "MYID"))

        def end() -> None:
            for each in (one, two):
                run(each, "CLUSTER", "SETSLOT", SLOT, "STABLE")

        yield two, begin, end


SCRIPT = ("EVAL", "return redis.call('SET', KEYS[1], 'v')", "2", "{t}here", "{t}gone")
WRITE = ("SET", "{t}k", "v")
STATES: dict[str, tuple[State, tuple[str, ...]]] = {
    "BUSY": (busy, WRITE),
    "LOADING": (loading, WRITE),
    "MISCONF": (unsaved, WRITE),
    "CLUSTERDOWN": (lacking_a_slot, WRITE),
    "TRYAGAIN": (moving_a_slot, SCRIPT),
    "ASK": (moving_a_slot, WRITE),
}


@pytest.mark.parametrize("word", STATES)
async def test_a_state_is_known_and_passes(program: Path, word: str) -> None:
    """A command that is sent while it lasts is repeated, and carried out when it is over."""
    if word == "TRYAGAIN" and program in [path for version, path in servers().items() if version < (7,)]:
        pytest.skip("Redis 6.2 says ASK instead of TRYAGAIN")
    state, command = STATES[word]
    with state(program) as (server, begin, end):
        store = Store.connect(Settings(redis_url=server.url, redis_patience=15))
        commands = store.commands
        await commands.connections.call("{t}k", [("PING",)])
        begin()
        (reply,) = await until(word, commands, command)
        assert (failure_of(reply).word, failure_of(reply).kind) == (word, Kind.PASSING)
        if word != "LOADING":  # whose connections cannot be opened meanwhile
            replies = await commands.connections.call("{t}k", [("MULTI",), command, ("EXEC",)])
            assert failure_of(next(each for each in replies if isinstance(each, Exception))).word == word
        asking = asyncio.create_task(commands.call(lambda: ask(commands, command)))
        errors = commands._metrics.redis_errors.labels(word)._value.get
        while not errors():
            await asyncio.sleep(0.01)
        assert not asking.done()
        await asyncio.to_thread(end)
        assert await asking == b"OK"
        await store.aclose()


async def until(word: str, commands: Commands, command: Command) -> list[Any]:
    """Send a command until it meets the error, which may also be raised when a connection is opened."""
    async with asyncio.timeout(20):
        while True:
            try:
                replies = await commands.connections.call("{t}k", [command])
            except RAISED as error:
                replies = [error]
            if isinstance(replies[0], Exception) and failure_of(replies[0]).word == word:
                return replies
            await asyncio.sleep(0.01)


async def ask(commands: Commands, command: Command) -> Any:
    return result((await commands.connections.share("{t}k", [command]))[0])
