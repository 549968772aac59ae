"""The stream within one node. It follows the same rules as the stream through Redis (tests/store/test_streams.py)."""

import asyncio

from relay.states import Outcome
from relay.store.streams import Ack, Entry
from relay.transfer.local_stream import LocalStream


async def read(stream: LocalStream, position: int, *, acknowledge: bool = False, count: int = 4) -> list[Entry]:
    return await stream.read(position=position, acknowledge=acknowledge, count=count, timeout=0.05)


async def test_chunks_come_in_order_and_then_the_end() -> None:
    stream = LocalStream()
    assert await stream.append([b"abc", memoryview(b"de")], offset=5) == Ack("0-0", 0)
    await stream.append([b"f"], offset=6)
    await stream.append([], offset=6, whole=True)
    assert await read(stream, 0, count=2) == [Entry(3, b"abc"), Entry(5, b"de")]
    assert await read(stream, 5) == [Entry(6, b"f"), Entry(6, outcome=Outcome.COMPLETE)]
    assert await read(stream, 6) == []


async def test_an_acknowledgement_tells_the_writer() -> None:
    stream = LocalStream()
    await stream.append([b"abc"], offset=3)
    await read(stream, 0)
    assert await stream.acks(after="0-1", timeout=0.05) is None
    waiting = asyncio.create_task(stream.acks(after="0-1", timeout=30))
    await asyncio.sleep(0)
    assert await read(stream, 3, acknowledge=True) == []
    assert await waiting == Ack("3-0", 3)
    assert await stream.acks(after="0-1", timeout=30) == Ack("3-0", 3), "a writer that asks late does not miss it"
    assert await stream.append([b"d"], offset=4) == Ack("3-0", 3)


async def test_a_reader_that_waits_wakes_at_once() -> None:
    stream = LocalStream()
    reading = asyncio.create_task(stream.read(position=0, acknowledge=False, count=4, timeout=30))
    await asyncio.sleep(0)
    await stream.append([b"a"], offset=1)
    assert await asyncio.wait_for(reading, 10) == [Entry(1, b"a")]


async def test_its_bytes_do_not_count_as_written_to_redis() -> None:
    stream = LocalStream()
    await stream.append([b"abc"], offset=3)
    assert stream.written == "0-0"
