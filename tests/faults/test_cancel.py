"""One side of a transfer is cancelled at every point where it waits, as when its server goes down.

Other tests end the transfer from outside at each of these points. Both sides must be told the same outcome.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

import fakeredis
import pytest

from relay.access import Access, Token
from relay.errors import Error, Problem
from relay.settings import Settings
from relay.states import Answer, Outcome, State
from relay.store import streams
from relay.store.records import Transfer
from relay.transfer.relay import Relay
from tests.support.redis import RedisServer
from tests.support.sides import Downloader, Uploader, keys_of_transfers, serving
from tests.support.steps import NEVER, Victim, factory, is_of_fakeredis

PIECES = [b"0123456789", b"abc", b"ABCDEFGHIJKLMNOPQRSTUVWXYZ", b"last"]
WHOLE = b"".join(PIECES)
#: Minimum number of steps of a side, so that a test cannot pass by cancelling nothing.
STEPS = 15


@dataclass
class Pair:
    """The uploader's node, the downloader's node, and one that has neither."""

    up: Relay
    down: Relay
    third: Relay

    async def upload(self, token: str, client: Uploader) -> int:
        return await self.up.upload(
            Access.of_operator(token),
            name="x",
            length=None,
            media_type="",
            body=client.body(),
            client=client.connection,
        )

    async def download(self, token: str, client: Downloader) -> Outcome:
        return await self.down.download(
            Access.of_operator(token), name="x", wait=60, sink=client, client=client.connection
        )

    async def settled(self) -> None:
        await self.up.context.background.wait()
        await self.down.context.background.wait()
        await self.third.context.background.wait()

    async def send_away(self, token: str, up: Uploader, down: Downloader) -> None:
        """Disconnect the client that still waits for the other side, which will not come any more."""
        transfer = await self.up.store.transfers.look(token=token, name="x", use=False)
        if transfer is not None and transfer.state is State.WAITING:
            up.leave()
        if not (self.down.node.load.downloads or self.down.node.load.uploads[State.STREAMING]):
            down.leave()


@pytest.fixture(params=["fakeredis", "redis"])
async def pair(request: pytest.FixtureRequest, prefix: str) -> AsyncIterator[Pair]:
    url = ""
    if request.param == "redis":
        server: RedisServer = request.getfixturevalue("redis_server")
        url = server.url
    embedded = fakeredis.FakeServer()
    asyncio.get_running_loop().set_task_factory(factory)

    def settings(node: str) -> Settings:
        # The window is so small that a few bytes fill it. An upload ends as soon as its downloader has left.
        return Settings(redis_url=url, prefix=prefix, node=node, chunk=10, window=20, rejoin_wait=0)

    async with (
        serving(settings("up"), embedded) as up,
        serving(settings("down"), embedded) as down,
        serving(settings("third"), embedded) as third,
    ):
        yield Pair(up, down, third)


@pytest.mark.parametrize("side", ["upload", "download"])
@pytest.mark.parametrize("first", ["upload", "download"], ids="{} first".format)
async def test_cancelled_at_any_step(pair: Pair, side: str, first: str) -> None:
    """The other side is told, the name is free, and no key or task is left behind."""
    at, was_cancelled = 0, True
    while was_cancelled:
        at += 1
        was_cancelled = await cancel(pair, side, first, at)
    assert at > STEPS


async def cancel(pair: Pair, side: str, first: str, at: int) -> bool:
    """Cancel a side at that step and check what is left. Return whether the side reached the step before it ended."""
    before, token = asyncio.all_tasks(), Token.new().id
    up, down = Uploader(PIECES), Downloader()
    await pair.up.store.tokens.make(token=token)
    work = {"upload": pair.upload(token, up), "download": pair.download(token, down)}
    sides: dict[str, Victim] = {}
    for name in sorted(work, key=lambda name: name != first):
        sides[name] = Victim(work[name], at=at if name == side else NEVER)
        await asyncio.sleep(0.002)  # usually the first side is waiting by the time the second one starts
    victim = sides[side]
    async with asyncio.timeout(30):
        await asyncio.wait([victim.task])
        await pair.settled()
        if victim.was_met:
            await pair.send_away(token, up, down)
        await asyncio.wait([each.task for each in sides.values()])
        await pair.settled()
    ends = tuple(await asyncio.gather(sides["upload"].task, sides["download"].task, return_exceptions=True))

    assert down.got == WHOLE[: len(down.got)]
    if not victim.was_met:
        assert ends == (len(WHOLE), Outcome.COMPLETE)
    if ends[0] == len(WHOLE):
        assert down.is_complete
    elif side == "download":
        assert not down.is_complete  # the uploader was told that the transfer failed
    assert not await keys_of_transfers(pair.up.store)
    found = await pair.up.store.tokens.read(token=token)
    assert found is not None
    assert not [field for field in found[1] if ":" in field]  # those that are about names
    assert found[1]["reserved"] == "0"
    assert pair.up.gate.is_idle()
    assert pair.down.gate.is_idle()
    assert not {task for task in asyncio.all_tasks() - before if not is_of_fakeredis(task)}
    return victim.was_met


@pytest.mark.parametrize("whole_token", [False, True], ids=["the name", "the token"])
@pytest.mark.parametrize("side", ["upload", "download"])
async def test_deleted_at_any_step(pair: Pair, side: str, whole_token: bool) -> None:
    """The upload and its download both succeed, or both fail, and the response to the DELETE says which."""
    at, was_met = 0, True
    while was_met:
        at += 1
        was_met = await delete(pair, side, at, whole_token=whole_token)
    assert at > STEPS


async def delete(pair: Pair, side: str, at: int, *, whole_token: bool) -> bool:
    """Delete the transfer or its token at that step of a side.

    Return whether the side reached the step before it ended.
    """
    token, up, down, deleted = Token.new().id, Uploader(PIECES), Downloader(), None
    has_deleted = asyncio.Event()
    await pair.up.store.tokens.make(token=token)
    # The node that deletes is a third one: it must not wait for the connection to Redis of a side that is paused until
    # the delete is done.

    async def now() -> None:
        nonlocal deleted
        with contextlib.suppress(Problem):
            if whole_token:
                await pair.third.revoke(Access.of_operator(token))
            else:
                deleted = False
                deleted = await pair.third.cancel(Access.of_operator(token), name="x")
        has_deleted.set()

    work = {"upload": pair.upload(token, up), "download": pair.download(token, down)}
    sides = {name: Victim(work[name], at=at if name == side else NEVER, meanwhile=now) for name in work}
    async with asyncio.timeout(30):
        await asyncio.wait([sides["upload"].task])
        if not down.begun:
            down.leave()  # the download would wait for another upload
        await asyncio.wait([sides["download"].task])
        if sides[side].was_met:  # a side that is told of the end goes on before the node that deletes is done
            await has_deleted.wait()
        await pair.settled()
    told, _ = await asyncio.gather(*(each.task for each in sides.values()), return_exceptions=True)

    assert down.is_complete is (told == len(WHOLE)), (at, told, down.got)
    if deleted is not None:
        assert deleted is (isinstance(told, Problem) and told.error is Error.CANCELLED), (at, told)
    return sides[side].was_met


async def test_whoever_was_given_nothing_yet_is_told_why(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """The headers go out with the last bytes if these are the first, too. So until then there is an error status.

    Of the smallest uploads, nobody asks for the last bytes.
    """
    monkeypatch.setattr(streams, "SMALL", 2)
    token, up, down = Token.new().id, Uploader([b"abc"]), Downloader()
    await pair.up.store.tokens.make(token=token)
    transfers = pair.down.store.transfers
    finish = transfers.finish

    async def cancel_first(transfer: Transfer, *, joiner: str) -> Answer:
        assert await pair.third.cancel(Access.of_operator(token), name="x")
        return await finish(transfer, joiner=joiner)

    monkeypatch.setattr(transfers, "finish", cancel_first)
    upload = pair.up.upload(
        Access.of_operator(token), name="x", length=3, media_type="", body=up.body(), client=up.connection
    )
    told = await asyncio.gather(upload, pair.download(token, down), return_exceptions=True)
    assert [problem.error for problem in told if isinstance(problem, Problem)] == 2 * [Error.CANCELLED], told
    assert not down.begun
