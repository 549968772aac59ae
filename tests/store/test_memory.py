"""What still works when Redis is out of memory, which error is raised, and how much memory a transfer takes."""

from collections.abc import AsyncIterator, Iterator

import pytest

from relay.buffers import CHUNK
from relay.errors import Error, StoreUnavailable
from relay.names import new_id
from relay.settings import Settings
from relay.states import Answer, Outcome, State
from relay.store.records import Broken, Final, Returned, Transfer
from relay.store.store import Store
from relay.store.streams import Entry
from relay.transfer.window import Window, footprint
from tests.store.conftest import client
from tests.support.redis import RedisServer, servers


@pytest.fixture(scope="module", params=["redis", "redis 6.2"])
def small_server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """Start a Redis that the tests may fill."""
    found = {version: path for version, path in servers().items() if request.param == "redis" or version[:2] == (6, 2)}
    if not found:
        pytest.skip(f"no {request.param} on this machine")
    with RedisServer(found[max(found)]) as server:
        yield server


@pytest.fixture
def redis_url(small_server: RedisServer) -> str:
    return small_server.url


@pytest.fixture
async def store(redis_url: str, prefix: str) -> AsyncIterator[Store]:
    settings = Settings(redis_url=redis_url, prefix=prefix, node="here", redis_patience=0.5, transfer_patience=0.5)
    store = Store.connect(settings)
    yield store
    await client(store).config_set("maxmemory", 0)
    await store.aclose()


async def fill(store: Store) -> None:
    await client(store).config_set("maxmemory", 1)


async def test_without_memory_nothing_begins(store: Store, transfer: Transfer) -> None:
    await store.transfers.claim(transfer, node="up", length=None, media_type="", use=False)
    other = store.transfers.identify(token=transfer.token, name="other", transfer_id=new_id())
    await fill(store)
    for refused in (
        store.tokens.make(token="x" * 22),
        store.transfers.claim(other, node="up", length=None, media_type="", use=True),
        store.transfers.join(transfer, joiner="me", node="down"),
        store.nodes.check(node="here"),
    ):
        with pytest.raises(StoreUnavailable) as caught:
            await refused
        assert caught.value.error is Error.STORE_FULL


async def test_without_memory_a_running_transfer_is_read_and_ends(store: Store, transfer: Transfer) -> None:
    await store.transfers.claim(transfer, node="up", length=None, media_type="", use=False)
    await store.transfers.join(transfer, joiner="me", node="down")
    await store.transfers.stream(transfer).append([b"abc"], offset=3)
    await fill(store)
    with pytest.raises(StoreUnavailable):
        await store.transfers.stream(transfer).append([b"d"], offset=4)
    assert await store.transfers.stream(transfer).read(position=0, acknowledge=False, count=4, timeout=0.05) == [
        Entry(3, b"abc")
    ]
    assert await store.transfers.stream(transfer).read(position=3, acknowledge=True, count=4, timeout=0.05) == []
    assert await client(store).xlen(transfer.keys.chunks) == 0
    assert (await store.transfers.touch(transfer, written="3-0")).outcome is None
    assert (await store.transfers.touch(transfer, joiner="me")).outcome is None
    assert isinstance(await store.transfers.end(transfer, Outcome.CANCELLED), Final)
    assert (await store.transfers.touch(transfer, joiner="me")).outcome is not None
    assert await store.transfers.end(transfer, Outcome.CANCELLED) is Answer.GONE


async def test_without_memory_a_side_may_leave_and_its_transfer_goes_on(store: Store, transfer: Transfer) -> None:
    """Afterwards the transfer waits; only what needs memory has to wait for it, too."""
    resumable = transfer._replace(upload="digest")
    await store.transfers.claim(resumable, node="up", length=None, media_type="", use=False)
    await store.transfers.join(transfer, joiner="me", node="down")
    await store.transfers.stream(transfer).append([b"abc"], offset=3)
    await fill(store)
    left = await store.transfers.leave(transfer, joiner="me", position=3)
    assert isinstance(left, Broken)
    # The marker needs memory, so the stream is deleted, and the upload asks.
    assert (await store.transfers.touch(transfer, written="3-0")).outcome is Outcome.BROKEN
    waits = await store.transfers.touch(left.transfer)
    assert (waits.outcome, waits.state, waits.start) == (None, State.WAITING, 3)
    with pytest.raises(StoreUnavailable):
        await store.transfers.join(left.transfer, joiner="me", node="down", start=3)
    assert isinstance(await store.transfers.interrupt(left.transfer, sender=transfer.id), Broken)
    found = await store.transfers.look(token=transfer.token, name=transfer.name, use=False)
    assert found is not None
    assert (found.state, found.position, found.leg) == (State.INTERRUPTED, 3, 2)
    back = await store.transfers.take_back(transfer, upload="digest", sender="again", node="b", state=State.WAITING)
    assert isinstance(back, Returned)
    assert back.transfer.leg == 3
    await client(store).config_set("maxmemory", 0)
    assert await store.transfers.join(back.transfer, joiner="me", node="down", start=3) is Answer.JOINED
    await fill(store)
    again = await store.transfers.take_back(back.transfer, upload="digest", sender="3", node="b", state=State.WAITING)
    assert isinstance(again, Returned)
    assert (await store.transfers.touch(back.transfer, joiner="me")).outcome is Outcome.BROKEN


async def test_without_memory_nodes_still_count_as_alive(store: Store) -> None:
    await store.nodes.beat(node="a", facts={"host": "x"})
    await fill(store)
    assert set(await store.nodes.beat(node="a", facts={"host": "y"})) == {"a"}
    assert await store.nodes.is_beating(node="a")
    assert set(await store.nodes.beat(node="b", facts={"host": "y"})) == {"a", "b"}


@pytest.mark.parametrize("size", [1, 20, 500, 1400, 1900, 2100, 2600, 5000, 70_000, 100_000, 140_000, 180_000, CHUNK])
async def test_a_full_window_takes_no_more_memory_than_its_size(store: Store, transfer: Transfer, size: int) -> None:
    """It takes the window and one entry at most, whatever the size of the entries. The 2 % are for what Redis
    allocates once per stream."""
    await store.transfers.claim(transfer, node="up", length=None, media_type="", use=False)
    await store.transfers.join(transfer, joiner="me", node="down")
    window, raw = Window(1024 * 1024), client(store).pipeline(transaction=False)
    while window.is_open:
        raw.xadd(transfer.keys.chunks, {"d": bytes(size)}, id=f"{window.write(size)}-0")
    await raw.execute()
    taken = await client(store).memory_usage(transfer.keys.chunks, samples=0)
    assert taken < (1024 * 1024 + footprint(size)) * 1.02
