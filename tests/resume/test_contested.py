"""Two downloads want one upload: the second may be the client of the first, whose connection is dead."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable

import fakeredis
import pytest

from relay.access import Access
from relay.errors import ClientGone, Error, Problem
from relay.settings import Settings
from relay.states import Outcome, State
from relay.transfer.doubt import is_taken
from relay.transfer.relay import Relay
from tests.support.sides import Downloader, Uploader, serving

PIECES = [secrets.token_bytes(8) for _ in range(40)]
WHOLE = b"".join(PIECES)


@pytest.fixture(params=["one node", "two nodes"])
async def nodes(request: pytest.FixtureRequest, prefix: str) -> AsyncIterator[tuple[Relay, Relay]]:
    """Yield the node of the first download, and that of the second."""
    server, config = fakeredis.FakeServer(), {"prefix": prefix, "chunk": 8, "window": 16, "stall": 300}
    async with serving(Settings(node="a", **config), server) as one:  # type: ignore[arg-type]
        if request.param == "one node":
            yield one, one
        else:
            async with serving(Settings(node="b", **config), server) as other:  # type: ignore[arg-type]
                yield one, other


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


def get(node: Relay, access: Access, client: Downloader) -> "asyncio.Task[Outcome]":
    work = node.download(access, name="x", wait=0, sink=client, client=client.connection)
    return asyncio.create_task(work)


def put(node: Relay, access: Access, client: Uploader) -> "asyncio.Task[int]":
    work = node.upload(access, name="x", length=None, media_type="", body=client.body(), client=client.connection)
    return asyncio.create_task(work)


async def test_a_client_that_takes_what_it_is_sent_keeps_its_place(nodes: tuple[Relay, Relay]) -> None:
    """It is slow, so that there is always something that it has not taken yet."""
    access = (await nodes[0].make_token()).access
    slow, second = Downloader(), Downloader()
    upload = put(nodes[0], access, Uploader(PIECES))
    slow.takes.clear()
    await until(lambda: nodes[0].node.load.uploads[State.WAITING])
    download = get(nodes[0], access, slow)
    await until(lambda: slow.is_blocked)

    async def take_slowly() -> None:
        while not download.done():
            await asyncio.sleep(0.5)
            slow.takes.set()
            await asyncio.sleep(0)
            slow.takes.clear()

    taking = asyncio.create_task(take_slowly())
    with pytest.raises(Problem) as refused:
        await get(nodes[1], access, second)
    assert refused.value.error is Error.TAKEN
    taking.cancel()
    slow.takes.set()
    assert await download is Outcome.COMPLETE
    assert await upload == len(WHOLE)
    assert slow.got == WHOLE


async def test_a_client_that_takes_nothing_loses_its_place_to_the_one_that_comes_back(
    nodes: tuple[Relay, Relay],
) -> None:
    """Its node breaks it off by itself, before whoever asks has to."""
    access = (await nodes[0].make_token()).access
    first = Downloader()
    upload = put(nodes[0], access, Uploader(PIECES))
    await until(lambda: nodes[0].node.load.uploads[State.WAITING])
    download = get(nodes[0], access, first)
    await until(lambda: len(first.got) > 8)
    first.takes.clear()
    await until(lambda: first.is_blocked)
    second = Downloader(len(first.got))
    assert await get(nodes[1], access, second) is Outcome.COMPLETE
    with pytest.raises(ClientGone):
        await download
    assert await upload == len(WHOLE)
    assert first.got + second.got == WHOLE


async def test_a_downloader_that_comes_back_again_and_again_does_not_prolong_a_transfer(prefix: str) -> None:
    """`RELAY_MAX_DURATION` is about all of it."""
    limits = Settings(prefix=prefix, node="a", chunk=8, window=16, max_duration=0.5)
    async with serving(limits, fakeredis.FakeServer()) as node:
        access, up = (await node.make_token()).access, Uploader(PIECES[:1], is_open=True)
        upload, got = put(node, access, up), b""
        for _ in range(100):
            await until(lambda: upload.done() or node.node.load.uploads[State.WAITING])
            if upload.done():
                break
            client = Downloader(len(got))
            download = get(node, access, client)
            up.send(b"more")
            await until(lambda client=client, download=download: client.got or download.done())  # type: ignore[misc]
            got += client.got
            await asyncio.sleep(0.05)
            client.leave()
            await asyncio.wait([download])
        with pytest.raises(Problem) as ended:
            await asyncio.wait_for(upload, 5)
        assert ended.value.error is Error.TOO_LONG
        assert up.content.startswith(got)


async def test_an_upload_that_is_over_by_the_time_of_the_answer_was_taken(nodes: tuple[Relay, Relay]) -> None:
    """Otherwise the second download would wait for another upload of the name, although it came too late for this."""
    access, first = (await nodes[0].make_token()).access, Downloader()
    upload = put(nodes[0], access, Uploader(PIECES))
    await until(lambda: nodes[0].node.load.uploads[State.WAITING])
    first.takes.clear()
    download = get(nodes[0], access, first)
    await until(lambda: first.is_blocked)
    seen = await nodes[1].look(access, name="x")
    assert seen is not None
    first.takes.set()
    assert (await download, await upload) == (Outcome.COMPLETE, len(WHOLE))
    assert await is_taken(nodes[1].context, seen, start=0)


async def test_a_client_that_takes_nothing_keeps_its_place_before_one_that_begins(nodes: tuple[Relay, Relay]) -> None:
    """It may be slow. A second client, or a chat's preview of a link, must not break it off."""
    access, first = (await nodes[0].make_token()).access, Downloader()
    upload = put(nodes[0], access, Uploader(PIECES))
    await until(lambda: nodes[0].node.load.uploads[State.WAITING])
    download = get(nodes[0], access, first)
    await until(lambda: len(first.got) > 8)
    first.takes.clear()
    await until(lambda: first.is_blocked)
    with pytest.raises(Problem) as refused:
        await get(nodes[1], access, Downloader())
    assert refused.value.error is Error.TAKEN
    first.takes.set()
    assert (await download, await upload) == (Outcome.COMPLETE, len(WHOLE))
    assert first.got == WHOLE


async def test_a_client_whose_machine_does_not_answer_loses_its_place_to_anybody(nodes: tuple[Relay, Relay]) -> None:
    access, first = (await nodes[0].make_token()).access, Downloader()
    upload = put(nodes[0], access, Uploader(PIECES[:1], is_open=True))
    await until(lambda: nodes[0].node.load.uploads[State.WAITING])
    download = get(nodes[0], access, first)
    await until(lambda: first.got)
    first.connection.has_stopped_answering = lambda: True  # type: ignore[method-assign]
    second = Downloader()
    again = get(nodes[1], access, second)
    await until(lambda: second.got)
    with pytest.raises(ClientGone):
        await download
    second.leave()
    await asyncio.wait([again])
    upload.cancel()
    await asyncio.wait([upload])
