"""Fixtures: the store on each kind of server: fakeredis in this process, the newest real Redis, and the oldest."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from relay.access import Token
from relay.names import new_id
from relay.settings import Settings
from relay.states import State
from relay.store.records import Touched, Transfer
from relay.store.store import Store
from tests.support.redis import RedisServer


@pytest.fixture(params=["fakeredis", "redis", "redis 6.2"])
def redis_url(request: pytest.FixtureRequest) -> str:
    if request.param == "fakeredis":
        return ""
    server: RedisServer = request.getfixturevalue("redis_server" if request.param == "redis" else "oldest_redis_server")
    return server.url


@pytest.fixture
async def store(redis_url: str, prefix: str) -> AsyncIterator[Store]:
    """Yield a store. After the test, check that every key has a TTL."""
    store = Store.connect(Settings(redis_url=redis_url, prefix=prefix, node="here"))
    yield store
    raw = client(store)
    endless = [key async for key in raw.scan_iter(f"{prefix}:*") if await raw.ttl(key) == -1]
    await store.aclose()
    assert not endless


def client(store: Store) -> Any:
    """Return the store's own Redis client, to inspect what the store did."""
    return store.commands.redis


@pytest.fixture
async def token(store: Store) -> str:
    token = Token.new().id
    await store.tokens.make(token=token)
    return token


@pytest.fixture
def transfer(store: Store, token: str) -> Transfer:
    """Return a transfer that has not been claimed yet."""
    return store.transfers.identify(token=token, name="file.bin", transfer_id=new_id())


def live(state: State, downloader: str = "", position: int = 0) -> Touched:
    """What touching a transfer returns whose upload is on the node `up` and whose download is `me`."""
    return Touched(None, state, downloader, position, uploader="up", joiner="me" if downloader else "")
