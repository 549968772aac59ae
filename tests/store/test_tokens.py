"""Minting, reading and revoking tokens, and how each use lengthens a token's life."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from relay.access import Token
from relay.errors import Error, Problem
from relay.names import new_id
from relay.settings import Settings
from relay.store.records import Claimed, Transfer, transfers_in
from relay.store.store import Store
from tests.store.conftest import client


async def set_life(store: Store, token: str, seconds: float) -> None:
    await client(store).pexpire(store.keys.token(token), int(seconds * 1000))


async def life(store: Store, token: str) -> float:
    found = await store.tokens.read(token=token)
    assert found is not None
    return found[0]


async def test_a_new_token_has_its_whole_life_and_no_uses(store: Store, token: str) -> None:
    found = await store.tokens.read(token=token)
    assert found is not None
    left, fields = found
    assert 1190 < left <= 1200
    assert fields["uses"] == "0"
    assert int(fields["created"]) > 0


async def test_an_unknown_token_is_none(store: Store) -> None:
    assert await store.tokens.read(token=Token.new().id) is None


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (1200, 1500),  # a use adds five minutes
        (10, 310),
        (3400, 3600),  # but no more than up to an hour from now
        (3600, 3600),
        (4000, 4000),  # and a use never shortens a life
    ],
)
async def test_a_use_adds_up_to_the_cap(store: Store, token: str, before: int, after: int) -> None:
    await set_life(store, token, before)
    await store.transfers.look(token=token, name="x", use=True)
    assert after - 5 < await life(store, token) <= after


async def test_a_look_that_is_no_use_changes_nothing(store: Store, token: str) -> None:
    await store.transfers.look(token=token, name="x", use=False)
    found = await store.tokens.read(token=token)
    assert found is not None
    assert found[0] <= 1200
    assert found[1]["uses"] == "0"


async def test_a_claim_is_a_use_and_its_repeat_is_not(store: Store, token: str, transfer: Transfer) -> None:
    for _ in range(3):  # repeated, as after a lost reply
        assert await store.transfers.claim(transfer, node="a", length=1, media_type="", use=True) == Claimed([])
    found = await store.tokens.read(token=token)
    assert found is not None
    assert 1490 < found[0] <= 1500
    assert found[1]["uses"] == "1"


async def test_a_streaming_transfer_keeps_its_token_at_five_minutes(store: Store, transfer: Transfer) -> None:
    await store.transfers.claim(transfer, node="a", length=1, media_type="", use=True)
    await store.transfers.join(transfer, joiner=new_id(), node="b")
    await set_life(store, transfer.token, 20)
    await store.transfers.touch(transfer, written="0-0")
    assert 295 < await life(store, transfer.token) <= 300
    await set_life(store, transfer.token, 400)
    await store.transfers.touch(transfer, written="0-0")
    assert 395 < await life(store, transfer.token) <= 400


async def test_a_waiting_transfer_does_not_lengthen_its_tokens_life(store: Store, transfer: Transfer) -> None:
    await store.transfers.claim(transfer, node="a", length=1, media_type="", use=True)
    await set_life(store, transfer.token, 20)
    await store.transfers.touch(transfer)
    assert await life(store, transfer.token) <= 20


async def test_a_token_expires_by_its_redis_ttl(redis_url: str, prefix: str) -> None:
    store = Store.connect(Settings(redis_url=redis_url, prefix=prefix, token_life=0.05))
    token = Token.new().id
    await store.tokens.make(token=token)
    assert await client(store).pttl(store.keys.token(token)) <= 50
    while await store.tokens.read(token=token) is not None:
        pass
    with pytest.raises(Problem) as caught:
        await store.transfers.look(token=token, name="x", use=True)
    assert caught.value.error is Error.UNKNOWN_TOKEN
    await store.aclose()


async def test_revoke_returns_the_transfers(store: Store, token: str, transfer: Transfer) -> None:
    await store.transfers.claim(transfer, node="a", length=1, media_type="", use=True)
    assert await store.tokens.revoke(token=token) == [("file.bin", transfer.id)]
    assert await store.tokens.read(token=token) is None
    assert await store.tokens.revoke(token=token) is None
    with pytest.raises(Problem):
        await store.transfers.claim(transfer, node="a", length=1, media_type="", use=True)


async def test_a_repeated_revoke_returns_the_same(
    store: Store, transfer: Transfer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the first reply was lost, only Redis still knows the transfers that the caller has to end."""
    await store.transfers.claim(transfer, node="a", length=1, media_type="", use=True)
    repeat = store.commands.repeat

    async def twice(command: Callable[[], Awaitable[Any]], **options: Any) -> Any:
        await repeat(command, **options)
        return await repeat(command, **options)

    monkeypatch.setattr(store.commands, "repeat", twice)
    assert await store.tokens.revoke(token=transfer.token) == [("file.bin", transfer.id)]


def test_transfers_in() -> None:
    assert transfers_in({"uses": "1", "transfer:a%3Ab": "1", "wanted:c": "n"}) == [("a%3Ab", "1")]
