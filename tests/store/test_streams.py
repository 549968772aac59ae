"""The streams that carry bytes between two nodes: append, read, acks, touch, and the end markers."""

import asyncio

import pytest

from relay.buffers import BATCH
from relay.errors import Error, StoreUnavailable
from relay.names import new_id
from relay.settings import Settings
from relay.states import Outcome, State
from relay.store.records import Ender, Touched, Transfer
from relay.store.store import Store
from relay.store.streams import Ack, Entry
from tests.store.conftest import client, live
from tests.support.redis import RedisServer, newest


@pytest.fixture
async def streaming(store: Store, transfer: Transfer) -> Transfer:
    await store.transfers.claim(transfer, node="up", length=None, media_type="", use=False)
    await store.transfers.join(transfer, joiner="me", node="down")
    return transfer


async def read(store: Store, transfer: Transfer, position: int, *, acknowledge: bool = False) -> list[Entry]:
    return await store.transfers.stream(transfer).read(
        position=position, acknowledge=acknowledge, count=4, timeout=0.05
    )


async def test_chunks_are_read_back_in_order_from_any_offset(store: Store, streaming: Transfer) -> None:
    assert await store.transfers.stream(streaming).append([b"abc"], offset=3) == Ack("0-1", 0)
    await store.transfers.stream(streaming).append([memoryview(b"de")], offset=5)
    await store.transfers.stream(streaming).append([], offset=5, whole=True)
    assert await read(store, streaming, 0) == [Entry(3, b"abc"), Entry(5, b"de"), Entry(5, outcome=Outcome.COMPLETE)]
    assert await read(store, streaming, 3) == [Entry(5, b"de"), Entry(5, outcome=Outcome.COMPLETE)]


async def test_a_repeated_write_doubles_nothing(store: Store, streaming: Transfer) -> None:
    for _ in range(3):
        assert await store.transfers.stream(streaming).append([b"abc"], offset=3) == Ack("0-1", 0)
    await store.transfers.stream(streaming).append([b"de"], offset=5)
    assert await store.transfers.stream(streaming).append([b"abc"], offset=3) == Ack("0-1", 0)
    assert await read(store, streaming, 0) == [Entry(3, b"abc"), Entry(5, b"de")]


async def test_several_chunks_are_written_at_once_and_a_repeat_doubles_none(store: Store, streaming: Transfer) -> None:
    stream = store.transfers.stream(streaming)
    for _ in range(2):
        assert await stream.append([b"abc", memoryview(b"de"), b"f"], offset=6) == Ack("0-1", 0)
    assert stream.written == "6-0"
    assert await read(store, streaming, 0) == [Entry(3, b"abc"), Entry(5, b"de"), Entry(6, b"f")]


async def test_of_several_chunks_all_are_written_or_none(prefix: str) -> None:
    """Redis has memory for the first chunk only. If it accepted a later one without the first, there would be a gap."""
    server = RedisServer(newest("writing without memory was not tested"), "--maxmemory-policy", "noeviction")
    store = Store.connect(Settings(redis_url=server.url, prefix=prefix, node="here", transfer_patience=2))
    try:
        transfer = store.transfers.identify(token="t", name="x", transfer_id=new_id())
        await store.tokens.make(token="t")
        await store.transfers.claim(transfer, node="up", length=None, media_type="", use=False)
        await store.transfers.join(transfer, joiner="me", node="down")
        used = (await client(store).info("memory"))["used_memory"]
        await client(store).config_set("maxmemory", used + 1_500_000)
        stream, chunks = store.transfers.stream(transfer), [bytes(1_000_000)] * 3
        with pytest.raises(StoreUnavailable) as caught:
            await stream.append(chunks, offset=3_000_000)
        assert caught.value.error is Error.STORE_FULL
        assert await client(store).xlen(transfer.keys.chunks) == 0
        await client(store).config_set("maxmemory", 0)
        assert await stream.append(chunks, offset=3_000_000) == Ack("0-1", 0)
        assert len(await read(store, transfer, 0)) == 3
    finally:
        await store.aclose()
        server.stop()


async def test_touch_records_the_progress_of_bytes_that_bypass_redis(store: Store, streaming: Transfer) -> None:
    for position, known in ((0, 0), (70, 70), (70, 70), (50, 70)):
        touched = await store.transfers.touch(streaming, joiner="me", position=position)
        assert touched == live(State.STREAMING, "down", position=known)
    assert await store.transfers.stream(streaming).acks(after="0-1", timeout=0.05) == Ack("70-0", 70)
    assert await client(store).xlen(streaming.keys.acks) == 1


async def test_touch_with_a_position_deletes_the_chunks_before_it(store: Store, streaming: Transfer) -> None:
    """Otherwise the upload, whose window has room again, would hold more in Redis than it may."""
    await store.transfers.stream(streaming).append([b"abc", b"de", b"f"], offset=6)
    assert (await store.transfers.touch(streaming, joiner="me", position=5)).position == 5
    assert [entry[0] for entry in await client(store).xrange(streaming.keys.chunks)] == [b"6-0"]
    assert await read(store, streaming, 5) == [Entry(6, b"f")]


async def test_an_empty_upload_is_one_marker(store: Store, streaming: Transfer) -> None:
    await store.transfers.stream(streaming).append([], offset=0, whole=True)
    assert await read(store, streaming, 0) == [Entry(0, outcome=Outcome.COMPLETE)]


async def test_an_acknowledgement_trims_and_tells_the_writer(store: Store, streaming: Transfer) -> None:
    await store.transfers.stream(streaming).append([b"abc"], offset=3)
    await store.transfers.stream(streaming).append([b"de"], offset=5)
    assert await read(store, streaming, 3, acknowledge=True) == [Entry(5, b"de")]
    assert [entry[0] for entry in await client(store).xrange(streaming.keys.chunks)] == [b"5-0"]
    assert await client(store).xlen(streaming.keys.acks) == 1
    assert await store.transfers.stream(streaming).append([b"f"], offset=6) == Ack("3-0", 3)
    assert await store.transfers.stream(streaming).acks(after="0-1", timeout=0.05) == Ack("3-0", 3)
    assert await store.transfers.stream(streaming).acks(after="3-0", timeout=0.05) is None


async def test_a_repeated_acknowledgement_does_no_harm(store: Store, streaming: Transfer) -> None:
    await store.transfers.stream(streaming).append([b"abc"], offset=3)
    for _ in range(2):
        assert await read(store, streaming, 3, acknowledge=True) == []
    assert await store.transfers.stream(streaming).acks(after="0-1", timeout=0.05) == Ack("3-0", 3)


async def test_a_blocked_reader_wakes_at_once(store: Store, streaming: Transfer) -> None:
    reading = asyncio.create_task(
        store.transfers.stream(streaming).read(position=0, acknowledge=False, count=4, timeout=30)
    )
    waiting = asyncio.create_task(store.transfers.stream(streaming).acks(after="0-1", timeout=30))
    await asyncio.sleep(0)
    await store.transfers.stream(streaming).append([b"a"], offset=1)
    assert await asyncio.wait_for(reading, 10) == [Entry(1, b"a")]
    await read(store, streaming, 1, acknowledge=True)
    assert await asyncio.wait_for(waiting, 10) == Ack("1-0", 1)


async def test_an_end_wakes_both_blocked_sides(store: Store, streaming: Transfer) -> None:
    reading = asyncio.create_task(
        store.transfers.stream(streaming).read(position=0, acknowledge=False, count=4, timeout=30)
    )
    waiting = asyncio.create_task(store.transfers.stream(streaming).acks(after="0-1", timeout=30))
    await asyncio.sleep(0.05)
    await store.transfers.end(streaming, Outcome.CANCELLED)
    assert await asyncio.wait_for(reading, 10) == [Entry(0, outcome=Outcome.CANCELLED)]
    ack = await asyncio.wait_for(waiting, 10)
    assert ack is not None
    assert ack.outcome is Outcome.CANCELLED


async def test_the_reader_gets_what_was_written_before_the_end(store: Store, streaming: Transfer) -> None:
    await store.transfers.stream(streaming).append([b"abc"], offset=3)
    await store.transfers.end(streaming, Outcome.UPLOADER_GONE)
    assert await read(store, streaming, 0) == [Entry(3, b"abc"), Entry(3, outcome=Outcome.UPLOADER_GONE)]


async def test_the_writer_learns_how_many_bytes_the_reader_took(store: Store, streaming: Transfer) -> None:
    await store.transfers.stream(streaming).append([b"x" * 300], offset=300)
    await store.transfers.end(streaming, Outcome.DOWNLOADER_GONE, Ender(joiner="me", position=200))
    ack = await store.transfers.stream(streaming).append([b"y"], offset=301)
    assert ack is not None
    assert (ack.position, ack.outcome) == (200, Outcome.DOWNLOADER_GONE)


async def test_a_late_acknowledgement_does_not_replace_the_end_marker(store: Store, streaming: Transfer) -> None:
    """The acknowledgement was under way when another caller ended the transfer."""
    await store.transfers.stream(streaming).append([b"x" * 300], offset=300)
    await store.transfers.end(streaming, Outcome.CANCELLED)
    await read(store, streaming, 300, acknowledge=True)
    assert await store.transfers.touch(streaming, written="300-0") == Touched(Outcome.CANCELLED)
    ack = await store.transfers.stream(streaming).acks(after="0-1", timeout=0.05)
    assert ack is not None
    assert (ack.position, ack.outcome) == (0, Outcome.CANCELLED)


@pytest.mark.parametrize("whole", [False, True])
async def test_a_late_write_does_not_hide_the_end_marker(store: Store, streaming: Transfer, whole: bool) -> None:
    """The write was under way when another caller ended the transfer."""
    stream = store.transfers.stream(streaming)
    await stream.append([b"x" * 10], offset=10)
    await store.transfers.end(streaming, Outcome.CANCELLED)
    await stream.append([b"y"] * BATCH, offset=10 + BATCH, whole=whole)
    assert await store.transfers.touch(streaming, joiner="me", position=10) == Touched(Outcome.CANCELLED)


async def test_writing_to_an_ended_transfer_creates_no_key(store: Store, streaming: Transfer) -> None:
    await store.transfers.end(streaming, Outcome.CANCELLED)
    await store.commands.redis.delete(streaming.keys.chunks, streaming.keys.acks)
    assert await store.transfers.stream(streaming).append([b"x"], offset=1) is None
    assert await store.transfers.stream(streaming).append([], offset=1, whole=True) is None
    await read(store, streaming, 1, acknowledge=True)
    assert not await client(store).exists(*streaming.keys.all()[1:])


async def test_the_streams_of_an_ended_transfer_expire(store: Store, streaming: Transfer) -> None:
    await store.transfers.end(streaming, Outcome.UPLOADER_GONE)
    for key in (streaming.keys.chunks, streaming.keys.acks):
        assert 25 < await client(store).ttl(key) <= 30


async def test_touch_returns_the_state_of_the_transfer(store: Store, transfer: Transfer) -> None:
    await store.transfers.claim(transfer, node="up", length=None, media_type="", use=False)
    assert await store.transfers.touch(transfer) == live(State.WAITING)
    await store.transfers.join(transfer, joiner="me", node="down")
    assert await store.transfers.touch(transfer) == live(State.STREAMING, "down")
    await store.transfers.end(transfer, Outcome.STALLED)
    assert await store.transfers.touch(transfer) == Touched(Outcome.STALLED)


async def test_each_side_keeps_its_own_stream_alive(store: Store, streaming: Transfer) -> None:
    keys = streaming.keys

    async def renewed() -> set[str]:
        answer = {key for key in keys.all()[1:] if await client(store).pttl(key) > 5000}
        for key in keys.all()[1:]:
            await client(store).pexpire(key, 5000)
        return answer

    await renewed()
    await store.transfers.touch(streaming)
    assert not await renewed()
    await store.transfers.touch(streaming, written="0-0")
    assert await renewed() == {keys.transfer, keys.chunks}
    await store.transfers.touch(streaming, joiner="me")
    assert await renewed() == {keys.acks}


@pytest.mark.parametrize("stream", ["chunks", "acks"])
async def test_touch_notices_that_a_stream_has_expired(store: Store, streaming: Transfer, stream: str) -> None:
    await client(store).delete(getattr(streaming.keys, stream))  # as its expiry would
    assert await store.transfers.touch(streaming, written="0-0") == Touched(Outcome.STORE_LOST)
    assert await store.transfers.touch(streaming, joiner="me") == Touched(Outcome.STORE_LOST)


async def test_touch_finds_what_a_rollback_lost(store: Store, transfer: Transfer) -> None:
    await store.transfers.claim(transfer, node="up", length=None, media_type="", use=False)
    assert await store.transfers.touch(transfer, written="0-0") == Touched(Outcome.STORE_LOST), "the join"
    assert await store.transfers.touch(transfer, joiner="me") == Touched(Outcome.STORE_LOST), "the join"
    await store.transfers.join(transfer, joiner="me", node="down")
    assert await store.transfers.touch(transfer, joiner="other") == Touched(Outcome.STORE_LOST), (
        "another joined afterwards"
    )
    await store.transfers.stream(transfer).append([b"x" * 12], offset=12)
    for written, is_there in [("9-0", True), ("12-0", True), ("12-1", False), ("13-0", False), ("100-0", False)]:
        outcome = (await store.transfers.touch(transfer, written=written)).outcome
        assert outcome is (None if is_there else Outcome.STORE_LOST), written
    await store.transfers.stream(transfer).append([], offset=12, whole=True)
    await read(store, transfer, 12, acknowledge=True)
    assert await store.transfers.touch(transfer, written="12-1") == live(State.STREAMING, "down", position=12)


async def test_touch_tells_revoked_from_lost(store: Store, streaming: Transfer) -> None:
    await client(store).delete(streaming.keys.token)  # as an operator would
    assert await store.transfers.touch(streaming, written="0-0") == Touched(Outcome.REVOKED, State.STREAMING)
    await client(store).delete(*streaming.keys.all())  # as a restart would
    assert await store.transfers.touch(streaming, written="0-0") == Touched(Outcome.STORE_LOST)


async def test_touch_returns_the_outcome_to_a_download_whose_uploader_is_done(
    store: Store, streaming: Transfer
) -> None:
    """The download learns it not only by reading on, because it may still be handing over earlier bytes."""
    await store.transfers.end(streaming, Outcome.UPLOADER_GONE)
    await store.commands.redis.delete(streaming.keys.acks)
    assert (await store.transfers.touch(streaming, joiner="me")).outcome is Outcome.UPLOADER_GONE


async def test_the_end_of_the_upload_is_not_the_end_of_the_download(store: Store, streaming: Transfer) -> None:
    await store.transfers.stream(streaming).append([], offset=0, whole=True)
    await client(store).delete(streaming.keys.transfer, streaming.keys.acks)
    assert (await store.transfers.touch(streaming, joiner="me")).outcome is Outcome.STORE_LOST


async def test_the_outcome_is_left_for_a_waiting_upload(store: Store, transfer: Transfer) -> None:
    await store.transfers.claim(transfer, node="up", length=None, media_type="", use=False)
    await store.transfers.end(transfer, Outcome.CANCELLED)
    assert await store.transfers.touch(transfer) == Touched(Outcome.CANCELLED)
    await store.commands.redis.delete(transfer.keys.acks)


async def test_a_late_writer_harms_no_successor(store: Store, streaming: Transfer) -> None:
    await store.transfers.end(streaming, Outcome.NODE_LOST)
    successor = store.transfers.identify(token=streaming.token, name=streaming.name, transfer_id=new_id())
    await store.transfers.claim(successor, node="up2", length=None, media_type="", use=False)
    await store.transfers.join(successor, joiner="other", node="down")
    await store.transfers.stream(streaming).append([b"late"], offset=4)
    assert await store.transfers.end(streaming, Outcome.UPLOADER_GONE) is not None
    assert await read(store, successor, 0) == []
    stands = await store.transfers.touch(successor, written="0-0")
    assert (stands.outcome, stands.state, stands.joiner) == (None, State.STREAMING, "other")
