"""What each error of Redis means to a node, produced by real servers of every version found: alone, within a script,
and within MULTI and EXEC."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from redis import exceptions

from relay.access import Token
from relay.errors import Error, StoreUnavailable
from relay.settings import Settings
from relay.store.failures import FAILURES, Kind, describe, failure_of
from relay.store.redis_py import RedisPy
from relay.store.resp import pack
from relay.store.store import Store
from tests.support.certificate import make_certificate
from tests.support.cluster import NodeProcess, assert_no_traceback
from tests.support.ports import free_port
from tests.support.redis import RedisServer, newest, servers
from tests.support.wait import wait_until

#: What brings a server into a state, and what takes it out of it again, as commands; then the command it refuses.
STATES: dict[str, tuple[list[str], list[str], str]] = {
    "NOREPLICAS": (["CONFIG SET min-replicas-to-write 1"], ["CONFIG SET min-replicas-to-write 0"], "SET k v"),
    "OOM": (["CONFIG SET maxmemory 1"], ["CONFIG SET maxmemory 0"], "SET k v"),
    "READONLY": (["REPLICAOF 127.0.0.1 1"], ["REPLICAOF NO ONE"], "SET k v"),
    "MASTERDOWN": (
        ["CONFIG SET replica-serve-stale-data no", "REPLICAOF 127.0.0.1 1"],
        ["REPLICAOF NO ONE", "CONFIG SET replica-serve-stale-data yes"],
        "GET k",
    ),
    "WRONGTYPE": (["SET s x"], ["DEL s"], "HSET s a b"),
    "NOPERM": (
        ["ACL SETUSER default -set"],
        ["ACL SETUSER default +@all"],
        "SET k v",
    ),
}
KINDS = {row.word: row.kind for row in FAILURES}


@pytest.fixture(scope="module", params=sorted(servers()), ids=lambda version: ".".join(map(str, version)))
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    with RedisServer(servers()[request.param]) as server:
        yield server


@contextlib.contextmanager
def state(server: RedisServer, word: str) -> Iterator[None]:
    into, out, _ = STATES[word]
    with server.client() as client:
        run: Callable[..., Any] = client.execute_command
        for command in into:
            run(*command.split())
        try:
            yield
        finally:
            for command in out:
                run(*command.split())


def script(command: str) -> tuple[str, ...]:
    arguments = ",".join(f"'{part}'" for part in command.split())
    return "EVAL", f"return redis.call({arguments})", "1", command.split()[1]


async def replies(server: RedisServer, *commands: tuple[str, ...]) -> list[Any]:
    """Return the replies that the store gets over one connection of its own."""
    store = Store.connect(Settings(redis_url=server.url))
    try:
        return await store.commands.connections.call("k", commands)
    finally:
        await store.aclose()


@pytest.mark.parametrize("word", STATES)
@pytest.mark.parametrize("way", ["alone", "script", "transaction", "script in a transaction"])
async def test_an_error_is_known_wherever_it_stands(server: RedisServer, word: str, way: str) -> None:
    plain = tuple(STATES[word][2].split())
    commands = {
        "alone": [plain],
        "script": [script(STATES[word][2])],
        "transaction": [("MULTI",), plain, ("EXEC",)],
        "script in a transaction": [("MULTI",), script(STATES[word][2]), ("EXEC",)],
    }[way]
    with state(server, word):
        got = await replies(server, *commands)
    done = got[-1]
    errors = [each for each in [*got, *(done if isinstance(done, list) else ())] if isinstance(each, Exception)]
    assert failure_of(errors[0]).word == word, errors
    assert failure_of(errors[0]).kind is KINDS[word]
    assert word in describe(errors[0])


@pytest.mark.parametrize("word", ["NOREPLICAS", "OOM", "READONLY"])
async def test_exec_names_what_went_wrong_after_the_command_was_queued(server: RedisServer, word: str) -> None:
    redis_py = RedisPy.connect(Settings(redis_url=server.url))
    link = await (await redis_py.locate("k")).connect()
    await link.exchange(b"".join(pack([("MULTI",), ("SET", "k", "v")])), 2)
    with state(server, word):
        (reply,) = await link.exchange(b"".join(pack([("EXEC",)])), 1)
    await link._connection.disconnect()
    await redis_py.aclose()
    assert str(reply).startswith("Transaction discarded"), "EXEC was carried out"
    assert failure_of(reply).word == word


@pytest.mark.parametrize(
    ("line", "word", "kind"),
    [
        ("NOREPLICAS Not enough good replicas to write.", "NOREPLICAS", Kind.PASSING),
        ("LOADING Redis is loading the dataset in memory", "LOADING", Kind.PASSING),
        ("BUSY Redis is busy running a script.", "BUSY", Kind.PASSING),
        ("MISCONF Errors writing to the AOF file: No space left on device", "MISCONF", Kind.PASSING),
        ("CLUSTERDOWN The cluster is down", "CLUSTERDOWN", Kind.PASSING),
        ("TRYAGAIN Multiple keys request during rehashing of slot", "TRYAGAIN", Kind.PASSING),
        ("MOVED 3999 127.0.0.1:6381", "MOVED", Kind.PASSING),
        ("ASK 3999 127.0.0.1:6381", "ASK", Kind.PASSING),
        ("UNBLOCKED force unblock from blocking operation, instance state changed", "UNBLOCKED", Kind.PASSING),
        ("ERR max number of clients reached", "clients", Kind.PASSING),
        ("ERR unknown command 'NONSENSE'", "ERR", Kind.FINAL),
        ("EXECABORT Transaction discarded because of previous errors.", "EXECABORT", Kind.FINAL),
        ("EXECABORT Transaction discarded because of: -LOADING x", "LOADING", Kind.PASSING),
        ("ERR This instance has cluster support disabled", "not a cluster", Kind.PASSING),
        ("NEWWORD that nobody has seen", "ERR", Kind.FINAL),
    ],
)
def test_words(line: str, word: str, kind: Kind) -> None:
    failure = failure_of(exceptions.ResponseError(line))
    assert (failure.word, failure.kind) == (word, kind)


@pytest.mark.parametrize("kind", Kind)
async def test_a_failure_is_repeated_unless_it_is_final(
    server: RedisServer, kind: Kind, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A final one is told at once, the others when the patience is over; the log has one line for many failures."""
    word = {Kind.PASSING: "NOREPLICAS", Kind.FULL: "OOM", Kind.FINAL: "NOPERM"}[kind]
    store = Store.connect(Settings(redis_url=server.url, prefix=prefix, redis_patience=0.3))
    with state(server, word), server.client() as client, caplog.at_level(logging.ERROR, "relay.store"):
        if kind is Kind.FINAL:
            client.execute_command("ACL", "SETUSER", "default", "-hset")
        for _ in range(3):
            with pytest.raises(StoreUnavailable) as caught:
                await store.tokens.make(token=Token.new().id)
            assert caught.value.error is (Error.STORE_FULL if kind is Kind.FULL else Error.STORE_DOWN)
    (line,) = caplog.messages
    assert line.startswith(f"Redis at 127.0.0.1:{server.port}: ")
    assert KINDS[word] is kind
    assert next(row.advice for row in FAILURES if row.word == word) in line
    errors = store.commands._metrics.redis_errors.labels(word)._value.get()
    assert errors == 3 if kind is Kind.FINAL else errors > 3
    await store.tokens.make(token=Token.new().id)
    await store.aclose()


async def test_what_gives_a_name_back_is_repeated_even_after_a_final_failure(server: RedisServer, prefix: str) -> None:
    store = Store.connect(Settings(redis_url=server.url, prefix=prefix, redis_patience=5))
    with server.client() as client:
        run: Any = client.execute_command
        run("ACL", "SETUSER", "default", "-hdel")
        token = Token.new().id
        await store.tokens.make(token=token)
        releasing = asyncio.create_task(store.transfers.unwant(token=token, name="x", node="n"))
        await asyncio.sleep(0.3)
        run("ACL", "SETUSER", "default", "+@all")
    await releasing
    await store.aclose()


# Diagnosis: what an operator is told of a wrong RELAY_REDIS_URL.


@pytest.fixture
def secured(server: RedisServer) -> Iterator[RedisServer]:
    with server.client() as client:
        run: Any = client.execute_command
        run("CONFIG", "SET", "requirepass", "right")
        yield server
    with redis.Redis(port=server.port, password="right") as client:
        client.config_set("requirepass", "")


async def complaint(url: str, caplog: pytest.LogCaptureFixture) -> str:
    # The last attempt begins after 0.6 s, because the pause after it would go beyond the patience. It has 0.5 s.
    store = Store.connect(Settings(redis_url=url, redis_patience=1.1))
    with caplog.at_level(logging.ERROR, "relay.store"), pytest.raises(StoreUnavailable):
        await store.nodes.beat(node="a", facts={"host": "x"})
    await store.aclose()
    (line,) = caplog.messages
    return line


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("redis://127.0.0.1:{port}", ["NOAUTH", "put it into RELAY_REDIS_URL"]),
        ("redis://:wrong@127.0.0.1:{port}", ["WRONGPASS", "correct the user and the password"]),
        ("redis://relay:wrong@127.0.0.1:{port}", ["WRONGPASS", "correct the user and the password"]),
        ("rediss://:right@127.0.0.1:{port}", ["rediss:// used for a port without TLS"]),
        ("redis+cluster://:right@127.0.0.1:{port}", ["use redis:// in RELAY_REDIS_URL"]),
        ("redis+sentinel://:right@127.0.0.1:{port}/main/0", ["sentinel"]),
        ("redis://:right@no-such-host.invalid:{port}", ["correct the host's name"]),
        ("redis://:right@127.0.0.1:{free}", ["is Redis up"]),
    ],
)
async def test_a_wrong_url_is_explained(
    secured: RedisServer, url: str, words: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    line = await complaint(url.format(port=secured.port, free=free_port()), caplog)
    for each in words:
        assert each in line
    assert "right@" not in line
    assert "wrong" not in line
    assert line.startswith("Redis at ")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("redis://127.0.0.1:{tls}", "if it wants TLS, use rediss://"),
        ("redis+cluster://127.0.0.1:{tls}", "if it wants TLS, use rediss://"),
        ("rediss://127.0.0.1:{plain}", "rediss:// used for a port without TLS?"),
        ("rediss+cluster://127.0.0.1:{plain}", "rediss:// used for a port without TLS?"),
        ("rediss://127.0.0.1:{tls}", "ssl_ca_certs= for a private authority"),
    ],
)
def test_a_node_says_that_only_one_end_speaks_tls(with_tls: dict[str, int], url: str, words: str) -> None:
    """It says so in one line, before anybody asks for anything."""
    node = NodeProcess("a", url.format(**with_tls), {"redis_patience": 0.3, "heartbeat": 0.3})

    def complaints() -> list[str]:
        return [line for line in node.log().splitlines() if "Redis at " in line and words in line]

    try:
        # On a busy machine the first attempts may take too long, of which another line complains.
        wait_until(complaints, "the complaint")
        wait_until(lambda: "Redis does not answer" in node.log(), "the first heartbeats")
    finally:
        node.kill()
    assert_no_traceback(node.log())


@pytest.fixture
def with_tls(tmp_path: Path) -> Iterator[dict[str, int]]:
    """Start a server with one port for TLS and one without. Yield both ports."""
    program = newest("a mismatch of TLS was not tested")
    if b"libssl" not in program.resolve().read_bytes():
        pytest.skip(f"{program} has no TLS")
    certificate, key = make_certificate(tmp_path)
    tls = free_port()
    files = ["--tls-cert-file", certificate, "--tls-key-file", key]
    with RedisServer(program, "--tls-port", str(tls), *files, "--tls-auth-clients", "no") as server:
        yield {"tls": tls, "plain": server.port}


def test_no_word_stands_twice() -> None:
    assert len({row.word for row in FAILURES}) == len(FAILURES)
