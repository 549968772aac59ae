"""Tries on a Redis what a node needs of it: see `check`."""

import statistics
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import TypeVar

from relay.access import Token
from relay.errors import StoreUnavailable
from relay.names import new_id
from relay.operations.census import Census
from relay.operations.eviction import ADVICE
from relay.rates import Rate
from relay.states import Outcome
from relay.store.failures import describe
from relay.store.rates import Counted
from relay.store.records import Ender
from relay.store.servers import OLDEST
from relay.store.store import Store

T = TypeVar("T")

#: Milliseconds of a round trip from which on it is called slow. A chunk takes one, so this bounds the speed.
_SLOW = 10.0
_ROUND_TRIPS = 20


class Checked(Exception):
    """Something is wrong. The text says what, in one line."""


async def check(store: Store, tell: Callable[[str], None]) -> None:
    """Try everything, and `tell` in one line each what was found. Raise Checked at what is wrong.

    All commands of a node are sent as a node sends them, about a token of their own. What remains expires within 30 s.
    """
    node = f"check-{new_id()}"
    await _try("write", store.nodes.check(node=node))
    times = []
    for _ in range(_ROUND_TRIPS):
        begun = perf_counter()
        await _try("EXISTS", store.nodes.is_beating(node=node))
        times.append((perf_counter() - begun) * 1000)
    middle = statistics.median(times)
    tell(f"writes: yes; round trip: {middle:.1f} ms{' (slow)' if middle > _SLOW else ''}")
    await _node(store, node)
    await _transfer(store)
    tell("commands: all that a node needs")
    facts = await store.servers.facts()
    if facts is None:
        tell("version and maxmemory-policy: unknown, because the user may not use INFO")
        return
    for server in facts:
        if server.version < OLDEST:
            raise Checked(f"version: {server.shown} is too old: use Redis 6.2 or newer, or Valkey")
        tell(f"version: {server.shown}")
        if server.evicts:
            raise Checked(f"maxmemory-policy: {server.policy}: {ADVICE}")
        tell(f"maxmemory-policy: {server.policy}")


async def _try(what: str, trial: Awaitable[T]) -> T:
    try:
        return await trial
    except StoreUnavailable as error:
        raise Checked(f"{what}: {describe(error.__cause__) if error.__cause__ else error.line}") from error


async def _node(store: Store, node: str) -> None:
    """Do what a node does apart from transfers."""
    await _try("heartbeat", store.nodes.beat(node=node, facts={"host": "relay check"}))
    await _try("wake-up", store.nodes.inbox(node=node, after="0-0", timeout=0.1))
    await _try("rates", store.rates.spend(Counted.TOKENS, Rate(1, 1), address="check"))
    await _try("status page", Census(store).overview())
    await _try("sign off", store.nodes.sign_off(node=node))


async def _transfer(store: Store) -> None:
    """Make a token, pass three bytes, and revoke the token."""
    (token, digest), transfers = Token.new().access, store.transfers
    if not await _try("make a token", store.tokens.make(token=token, digest=digest)):
        raise Checked(f"make a token: there is a token {token} already, which is rare: run this again")
    transfer = transfers.identify(token=token, name="check")
    stream = transfers.stream(transfer)
    await _try("claim", transfers.claim(transfer, node="check", length=3, media_type="", use=True))
    await _try("look", transfers.look(token=token, name="check", use=True))
    await _try("join", transfers.join(transfer, joiner="check", node="check"))
    await _try("write chunks", stream.append([b"a", b"bc"], offset=3))
    await _try("read chunks", stream.read(position=0, acknowledge=False, count=4, timeout=0.1))
    await _try("acknowledge", stream.read(position=3, acknowledge=True, count=4, timeout=0.01))
    await _try("touch", transfers.touch(transfer, written="3-0"))
    await _try("finish", transfers.finish(transfer, joiner="check"))
    mine = ("chunks", "acks")
    await _try("end", transfers.end(transfer, Outcome.COMPLETE, Ender(joiner="check", position=3, unneeded=mine)))
    await _try("revoke", store.tokens.revoke(token=token))
