"""Each form of RELAY_REDIS_URL, against a real server of that kind: one transfer's verbs from end to end."""

import asyncio
import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from relay.access import Token
from relay.names import new_id
from relay.operations.census import Census
from relay.rates import Rate
from relay.settings import Settings
from relay.states import Answer, Outcome
from relay.store.rates import Counted
from relay.store.records import Claimed, Ender, Final
from relay.store.store import Store
from relay.store.streams import Entry
from tests.support.certificate import make_certificate
from tests.support.pages import OPERATORS
from tests.support.ports import free_port
from tests.support.redis import RedisServer, cluster_of_two, newest, servers
from tests.support.wait import wait_until


def acl_user(prefix: str, *, cluster: bool = False) -> list[str]:
    """The user that the operators' page proposes, with this prefix and password, as arguments of redis-server."""
    text = OPERATORS.read_text()
    line = re.search(r"^user relay .*$", text, re.MULTILINE)
    more = re.search(r"a Redis Cluster needs `(.*?)` as well", text)
    assert line
    assert more
    rules = line[0].removeprefix("user ").replace("SECRET", "secret").replace("relay:", f"{prefix}:")
    return ["--user", *rules.split(), *(more[1].split() if cluster else [])]


@pytest.fixture(params=sorted(servers()) or [()], ids=lambda version: ".".join(map(str, version)))
def program(request: pytest.FixtureRequest) -> Path:
    return servers().get(request.param) or newest("the forms of RELAY_REDIS_URL were not tested")


@pytest.fixture
def unix_url(program: Path, tmp_path: Path) -> Iterator[str]:
    with RedisServer(program, "--unixsocket", str(tmp_path / "s")):
        yield f"unix://{tmp_path}/s?db=1"


@pytest.fixture
def password_url(program: Path, prefix: str) -> Iterator[str]:
    with RedisServer(program, *acl_user(prefix)) as server:
        yield f"redis://relay:secret@127.0.0.1:{server.port}/0"


@pytest.fixture
def tls_url(program: Path, tmp_path: Path, prefix: str) -> Iterator[str]:
    if b"libssl" not in program.resolve().read_bytes():
        pytest.skip(f"{program} has no TLS")
    certificate, key = make_certificate(tmp_path)
    port = free_port()
    files = ["--tls-cert-file", certificate, "--tls-key-file", key]
    with RedisServer(program, "--tls-port", str(port), *files, "--tls-auth-clients", "no", *acl_user(prefix)):
        yield f"rediss://relay:secret@127.0.0.1:{port}/0?ssl_ca_certs={certificate}"


@pytest.fixture
def cluster_url(program: Path, prefix: str) -> Iterator[str]:
    with cluster_of_two(program, *acl_user(prefix, cluster=True)) as nodes:
        yield f"redis+cluster://relay:secret@127.0.0.1:{nodes[0].port}"


@pytest.fixture
def sentinel_url(program: Path, tmp_path: Path) -> Iterator[str]:
    master = RedisServer(program)
    port = free_port()
    config = tmp_path / "sentinel.conf"
    config.write_text(f"port {port}\nbind 127.0.0.1\ndir {tmp_path}\nsentinel monitor main 127.0.0.1 {master.port} 1\n")
    with subprocess.Popen([program, config, "--sentinel"], stdout=subprocess.DEVNULL) as sentinel:
        client: Any = redis.Redis(port=port)

        def knows() -> bool:
            try:
                return bool(client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main"))
            except redis.ConnectionError:
                return False

        wait_until(knows, "the sentinel")
        client.close()
        yield f"redis+sentinel://127.0.0.1:{port}/main/0"
        sentinel.kill()
    master.stop()


@pytest.fixture
def hung_sentinel_url(sentinel_url: str) -> Iterator[str]:
    """Put a sentinel that accepts connections and says nothing, and one that is gone, before the one that lives."""
    with socket.create_server(("127.0.0.1", 0)) as hung:
        port = hung.getsockname()[1]
        yield sentinel_url.replace("//", f"//127.0.0.1:{port},127.0.0.1:{free_port()},", 1)


@pytest.mark.parametrize("form", ["unix", "password", "tls", "cluster", "sentinel", "hung_sentinel"])
async def test_form(form: str, program: Path, request: pytest.FixtureRequest, prefix: str) -> None:
    url: str = request.getfixturevalue(f"{form}_url")
    store = Store.connect(Settings(redis_url=url, prefix=prefix))
    for _ in range(4):  # tokens in several slots, where there are slots
        await one_transfer(store)
    assert set(await store.nodes.beat(node="a", facts={"host": "x"})) == {"a"}
    await store.nodes.wake(node="a", about="b")
    assert (await store.nodes.inbox(node="a", after="0-0", timeout=1))[1] == ["b"]
    assert await store.rates.spend(Counted.TOKENS, Rate(1, 3600), address="192.0.2.1") == 0
    assert await store.rates.spend(Counted.TOKENS, Rate(1, 3600), address="192.0.2.1") > 0
    tokens = await Census(store).tokens()
    assert (len(tokens), await Census(store).transfers()) == (4, [])
    await Census(store).enrol(lives={life.token: life.seconds for life in tokens})
    overview = await Census(store).overview()
    assert (overview.tokens, len(overview.lives), len(overview.nodes)) == (4, 4, 1)
    await store.nodes.sign_off(node="a")
    await store.aclose()


async def one_transfer(store: Store) -> None:
    token = Token.new().id
    await store.tokens.make(token=token)
    transfer = store.transfers.identify(token=token, name="x", transfer_id=new_id())
    assert await store.transfers.claim(transfer, node="a", length=3, media_type="", use=True) == Claimed([])
    found = await store.transfers.look(token=token, name="x", use=True)
    assert found is not None
    assert await store.transfers.join(found, joiner="me", node="b") is Answer.JOINED
    reading = asyncio.create_task(
        store.transfers.stream(transfer).read(position=0, acknowledge=False, count=4, timeout=10)
    )
    await store.transfers.stream(transfer).append([b"a", b"bc"], offset=3)
    assert await reading == [Entry(1, b"a"), Entry(3, b"bc")]
    assert await store.transfers.stream(transfer).read(position=3, acknowledge=True, count=4, timeout=0.01) == []
    ack = await store.transfers.stream(transfer).append([], offset=3, whole=True)
    assert ack is not None
    assert ack.position == 3
    assert isinstance(await store.transfers.end(transfer, Outcome.COMPLETE, Ender(joiner="me", position=3)), Final)
    await store.commands.redis.delete(transfer.keys.chunks, transfer.keys.acks)
