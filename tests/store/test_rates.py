"""Rate limits, kept by the `limits` package over the store's own Redis client."""

import pytest
from limits import parse

from relay.errors import StoreUnavailable
from relay.settings import Settings
from relay.store.rates import Rate
from relay.store.store import Store
from tests.store.conftest import client
from tests.support.ports import free_port


async def test_an_address_that_has_spent_its_limit_must_wait(store: Store) -> None:
    limit = parse("3/hour")
    for _ in range(3):
        assert await store.rates.is_spent(Rate.TOKENS, limit, address="192.0.2.1") == 0
        assert await store.rates.spend(Rate.TOKENS, limit, address="192.0.2.1") == 0
    for ask in (store.rates.spend, store.rates.is_spent):
        assert 1 <= await ask(Rate.TOKENS, limit, address="192.0.2.1") <= 3600
        assert await ask(Rate.TOKENS, limit, address="192.0.2.2") == 0  # another address
        assert await ask(Rate.FAILURES, limit, address="192.0.2.1") == 0  # another counter


async def test_its_keys_have_our_prefix_and_expire(store: Store, prefix: str) -> None:
    await store.rates.spend(Rate.TOKENS, parse("3/hour"), address="2001:db8::/64")
    keys = [key.decode() async for key in client(store).scan_iter("*2001:db8*") if prefix.encode() in key]
    assert keys == [f"{prefix}:rate:{{LIMITER/tokens/2001:db8::/64/3/1/hour}}"]
    assert 3600 < await client(store).ttl(keys[0]) <= 7200


async def test_without_redis_it_raises(prefix: str) -> None:
    store = Store.connect(Settings(redis_url=f"redis://127.0.0.1:{free_port()}", prefix=prefix, redis_patience=0.1))
    with pytest.raises(StoreUnavailable):
        await store.rates.spend(Rate.TOKENS, parse("3/hour"), address="192.0.2.1")
    await store.aclose()
