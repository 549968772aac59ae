"""spend: the limits on what an address may do, counted in Redis."""

import pytest

from relay.errors import StoreUnavailable
from relay.rates import Rate
from relay.settings import Settings
from relay.store.rates import Counted
from relay.store.store import Store
from tests.store.conftest import client
from tests.support.ports import free_port

LIMIT = Rate(3, 3600)


async def test_an_address_that_has_spent_its_limit_must_wait(store: Store) -> None:
    for _ in range(3):
        assert await store.rates.is_spent(Counted.TOKENS, LIMIT, address="192.0.2.1") == 0
        assert await store.rates.spend(Counted.TOKENS, LIMIT, address="192.0.2.1") == 0
    for ask in (store.rates.spend, store.rates.is_spent):
        assert 1 <= await ask(Counted.TOKENS, LIMIT, address="192.0.2.1") <= 3600
        assert await ask(Counted.TOKENS, LIMIT, address="192.0.2.2") == 0  # another address
        assert await ask(Counted.FAILURES, LIMIT, address="192.0.2.1") == 0  # another counter


async def counter(store: Store, *, age: int, count: int, before: int) -> str:
    """Write a counter whose window began `age` seconds ago by Redis's clock. Return its key."""
    seconds, microseconds = await client(store).time()
    begun = (seconds - age) * 1000 + microseconds // 1000
    key = store.keys.rate(Counted.TOKENS, "192.0.2.1")
    await client(store).hset(key, mapping={"begun": begun, "count": count, "before": before})
    await client(store).expire(key, 7200)
    return key


@pytest.mark.parametrize(
    ("age", "count", "before", "admits", "wait"),
    [
        (1818, 99, 0, 1, 1782),  # until the window is over
        (1818, 50, 100, 1, 18),  # half of the window before counts; one of its 100 leaves every 36 s
        (1826, 50, 100, 1, 10),
        (1818, 51, 100, 0, 18),
        (3618, 100, 0, 1, 18),  # the window is over, and has become the window before
        (3610, 101, 0, 0, 3590 % (3600 / 101)),
        (5418, 100, 0, 51, 18),
        (7190, 100, 0, 100, 10),
        (7201, 100, 100, 100, 3600),  # it is forgotten
        (90_000, 100, 0, 100, 3600),
        (-1000, 99, 0, 1, 3600),  # Redis's clock was set back
    ],
)
async def test_the_window_before_weighs_by_what_is_left_of_it(
    store: Store, age: int, count: int, before: int, admits: int, wait: float
) -> None:
    """Give or take the second that the test itself takes."""
    limit = Rate(100, 3600)
    key = await counter(store, age=age, count=count, before=before)
    for number in range(admits):
        assert await store.rates.spend(Counted.TOKENS, limit, address="192.0.2.1") == 0, number
    waits = [await ask(Counted.TOKENS, limit, address="192.0.2.1") for ask in (store.rates.is_spent, store.rates.spend)]
    assert all(max(1, wait - 1.5) <= seconds <= max(1, wait + 0.1) for seconds in waits), waits
    assert await client(store).ttl(key) > 7190


async def test_only_asking_writes_nothing(store: Store) -> None:
    assert await store.rates.is_spent(Counted.TOKENS, LIMIT, address="192.0.2.1") == 0
    key = await counter(store, age=4000, count=1, before=0)
    fields = await client(store).hgetall(key)
    assert await store.rates.is_spent(Counted.TOKENS, LIMIT, address="192.0.2.1") == 0
    assert await client(store).hgetall(key) == fields


async def test_its_keys_have_our_prefix_and_expire(store: Store, prefix: str) -> None:
    await store.rates.spend(Counted.TOKENS, LIMIT, address="2001:db8::/64")
    keys = [key.decode() async for key in client(store).scan_iter("*2001:db8*") if prefix.encode() in key]
    assert keys == [f"{prefix}:rate:tokens:2001:db8::/64"]
    assert 3600 < await client(store).ttl(keys[0]) <= 7200
    fields = await client(store).hgetall(keys[0])
    assert fields.pop(b"begun").isdigit()
    assert fields == {b"count": b"1", b"before": b"0"}


async def test_without_redis_it_raises(prefix: str) -> None:
    store = Store.connect(Settings(redis_url=f"redis://127.0.0.1:{free_port()}", prefix=prefix, redis_patience=0.1))
    with pytest.raises(StoreUnavailable):
        await store.rates.spend(Counted.TOKENS, LIMIT, address="192.0.2.1")
    await store.aclose()
