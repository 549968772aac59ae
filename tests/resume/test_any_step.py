"""A download is broken off at each of its steps, and comes back on another node. The file is whole, always."""

import asyncio
from collections.abc import AsyncIterator
from typing import NamedTuple

import fakeredis
import pytest

from relay.access import Access, Token
from relay.settings import Settings
from relay.states import Outcome
from relay.transfer.relay import Relay
from tests.support.redis import RedisServer
from tests.support.sides import Downloader, Uploader, keys_of_transfers, serving
from tests.support.steps import Victim, factory, is_of_fakeredis

PIECES = [b"0123456789", b"abcdefghij" * 2, b"k", b"lmnopqrstu" * 3]
WHOLE = b"".join(PIECES)
#: Minimum number of steps of a download, so that the test cannot pass by breaking off nothing.
STEPS = 20


class Nodes(NamedTuple):
    up: Relay
    down: Relay
    other: Relay


@pytest.fixture(params=["fakeredis", "redis"])
async def nodes(request: pytest.FixtureRequest, prefix: str) -> AsyncIterator[Nodes]:
    url = ""
    if request.param == "redis":
        server: RedisServer = request.getfixturevalue("redis_server")
        url = server.url
    embedded = fakeredis.FakeServer()
    asyncio.get_running_loop().set_task_factory(factory)

    def settings(node: str) -> Settings:  # the window is so small that a few bytes fill it
        return Settings(redis_url=url, prefix=prefix, node=node, chunk=10, window=20)

    async with (
        serving(settings("up"), embedded) as up,
        serving(settings("down"), embedded) as down,
        serving(settings("other"), embedded) as other,
    ):
        yield Nodes(up, down, other)


@pytest.mark.parametrize("back_on", ["other", "up", "down"])
@pytest.mark.parametrize("has_lost", [0, 7], ids=["has all", "has lost some"])
async def test_broken_off_at_any_step(nodes: Nodes, back_on: str, has_lost: int) -> None:
    at, was_met = 0, True
    while was_met:
        at += 1
        was_met = await break_off(nodes, at, back_on, has_lost)
    assert at > STEPS


async def break_off(nodes: Nodes, at: int, back_on: str, has_lost: int) -> bool:
    """Cancel the download at that step, and let its client come back. Return whether the step was reached."""
    before, token, up, down = asyncio.all_tasks(), Token.new().id, Uploader(PIECES), Downloader()
    await nodes.up.store.tokens.make(token=token)
    uploading = asyncio.create_task(
        nodes.up.upload(
            Access.of_operator(token), name="x", length=None, media_type="", body=up.body(), client=up.connection
        )
    )
    victim = Victim(get(nodes.down, token, down), at=at)
    async with asyncio.timeout(30):
        await asyncio.wait([victim.task])
        await nodes.down.context.background.wait()
        got = down.got
        if not down.is_complete:
            got = got[: max(0, len(got) - has_lost)]
            back = Downloader(len(got))
            assert await get(getattr(nodes, back_on), token, back) is Outcome.COMPLETE, at
            got += back.got
        assert got == WHOLE, at
        assert await uploading == len(WHOLE), at
        for node in nodes:
            await node.context.background.wait()
    assert not await keys_of_transfers(nodes.up.store), at
    assert not {task for task in asyncio.all_tasks() - before if not is_of_fakeredis(task)}, at
    return victim.was_met


async def get(node: Relay, token: str, client: Downloader) -> Outcome:
    return await node.download(Access.of_operator(token), name="x", wait=20, sink=client, client=client.connection)


@pytest.mark.parametrize("down_on", ["up", "down"])
async def test_a_body_may_end_at_any_step(nodes: Nodes, down_on: str) -> None:
    """Whatever the upload waits for at that moment, it notices."""
    at, was_met = 0, True
    while was_met:
        at += 1
        token, up, down = Token.new().id, Uploader(PIECES, is_open=True), Downloader()

        async def end(up: Uploader = up) -> None:
            up.end()
            for _ in range(20):  # until the end has been taken in
                await asyncio.sleep(0)

        await nodes.up.store.tokens.make(token=token)
        work = nodes.up.upload(
            Access.of_operator(token), name="x", length=None, media_type="", body=up.body(), client=up.connection
        )
        victim = Victim(work, at=at, meanwhile=end)
        downloading = asyncio.create_task(get(getattr(nodes, down_on), token, down))
        async with asyncio.timeout(10):
            while not (victim.was_met or down.got == WHOLE):
                await asyncio.sleep(0.001)
            was_met = victim.was_met
            if not was_met:
                up.end()
            assert await victim.task == len(WHOLE), at
            assert await downloading is Outcome.COMPLETE, at
        assert down.got == WHOLE, at
    assert at > STEPS // 2
