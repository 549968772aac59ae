"""The end of an upload arrives at an awkward moment."""

import asyncio
from collections.abc import Sequence

import fakeredis
import pytest

from relay.buffers import Bytes
from relay.settings import Settings
from relay.states import Outcome
from relay.store.streams import Ack, RedisStream
from tests.support.sides import Downloader, Uploader, serving


async def test_a_body_that_ends_while_its_last_bytes_are_written(prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    server, uploader, downloader = fakeredis.FakeServer(), Uploader([b"all"], is_open=True), Downloader()
    append = RedisStream.append

    async def append_slowly(
        stream: RedisStream, chunks: Sequence[Bytes], *, offset: int, whole: bool = False
    ) -> Ack | None:
        if chunks:
            uploader.end()
            await asyncio.sleep(0.05)  # the intake takes the end in, which takes some rounds of the loop
        return await append(stream, chunks, offset=offset, whole=whole)

    monkeypatch.setattr(RedisStream, "append", append_slowly)
    async with (
        asyncio.timeout(10),
        serving(Settings(node="a", prefix=prefix), server) as up,
        serving(Settings(node="b", prefix=prefix), server) as down,
    ):
        access, body, client = (await up.make_token()).access, uploader.body(), uploader.connection
        upload = asyncio.create_task(up.upload(access, name="x", length=None, media_type="", body=body, client=client))
        outcome = await down.download(access, name="x", wait=5, sink=downloader, client=downloader.connection)
        assert outcome is Outcome.COMPLETE
        assert await upload == 3
