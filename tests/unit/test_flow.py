"""Offsets, the window, the share of a window, buffers and the rate meter."""

import tracemalloc
from collections import deque

import pytest

from relay.buffers import BATCH, CHUNK, Blocks, Buffer
from relay.cluster.progress import STEP, STEPS, History, Meter
from relay.store.offsets import chunk_id, end_id, follows, offset_of, trim_id
from relay.transfer.window import Window, footprint, window_size


def test_an_entry_id_is_the_offset_after_the_chunk() -> None:
    assert chunk_id(261632) == "261632-0"
    assert end_id(261632) == "261632-1"
    assert offset_of(b"261632-0") == 261632


def test_the_end_marker_sorts_after_the_last_chunk_and_survives_its_trimming() -> None:
    def order(entry_id: str) -> tuple[int, ...]:
        return tuple(int(part) for part in entry_id.split("-"))

    assert order(chunk_id(10)) < order(trim_id(10)) <= order(end_id(10))
    assert order(end_id(0)) > (0, 0)  # Redis refuses 0-0


def test_a_window_closes_when_it_is_full_and_opens_with_an_acknowledgement() -> None:
    window = Window(1000)
    assert window.write(400) == 400
    assert window.is_open
    assert window.write(500) == 900
    assert not window.is_open
    window.acknowledge(400)
    assert window.is_open
    window.acknowledge(10)  # a late acknowledgement changes nothing
    assert (window.written, window.acknowledged, window.is_open) == (900, 400, True)


def test_a_window_of_any_size_takes_one_chunk() -> None:
    window = Window(1)
    assert window.is_open
    window.acknowledge(window.write(CHUNK))
    assert window.is_open


def test_small_entries_fill_a_window_before_their_bytes_do() -> None:
    window, count = Window(2 * 1024 * 1024), 0
    while window.is_open:
        window.write(1)
        count += 1
    assert 25_000 < count < 35_000, "an entry of one byte counts for about 73 bytes of memory"


MIB = 1024 * 1024


@pytest.mark.parametrize(
    ("size", "memory"),
    [(1, 73), (1400, 1792), (4000, 4096 + 512), (100_000, 112 * 1024 + 512), (CHUNK, 256 * 1024 + 512)],
)
def test_an_entry_counts_for_the_memory_that_redis_allocates(size: int, memory: int) -> None:
    assert footprint(size) == memory


@pytest.mark.parametrize(
    ("window", "uploads", "of_each", "within_a_node"),
    [
        (2 * MIB, 0, 2 * MIB, 2 * MIB),
        (2 * MIB, 24, 2 * MIB, 2 * MIB),
        (2 * MIB, 48, 2 * MIB, MIB),
        (2 * MIB, 96, MIB, MIB // 2),
        (2 * MIB, 1000, 3 * CHUNK, CHUNK),
        (CHUNK, 1000, CHUNK, CHUNK),  # never more than the configured window
        (64 * MIB, 2, 48 * MIB, 24 * MIB),
    ],
)
def test_the_more_uploads_stream_the_smaller_is_the_window_of_each(
    window: int, uploads: int, of_each: int, within_a_node: int
) -> None:
    assert window_size(window, chunk=CHUNK, uploads=uploads) == of_each
    assert window_size(window, chunk=CHUNK, uploads=uploads, is_local=True) == within_a_node


@pytest.mark.parametrize(("position", "offset", "size", "fits"), [(0, 5, 5, True), (5, 9, 3, False), (5, 9, 5, False)])
def test_follows(position: int, offset: int, size: int, fits: bool) -> None:
    assert follows(position=position, offset=offset, size=size) is fits


def drain(buffer: Buffer) -> list[bytes]:
    taken = []
    while buffer:
        taken.append(bytes(buffer.take()))
    return taken


@pytest.mark.parametrize(
    ("pieces", "chunks"),
    [
        ([], []),
        ([b""], []),
        ([b"a"], [b"a"]),
        ([b"ab", b"cd"], [b"abcd"]),
        ([b"ab", b"cde"], [b"ab", b"cde"]),  # a piece that fits a chunk is not split
        ([b"abcd"], [b"abcd"]),
        ([b"abcdefghij"], [b"abcd", b"efgh", b"ij"]),
        ([b"a", b"bcdefg", b"h"], [b"a", b"bcde", b"fgh"]),
    ],
)
def test_buffer_keeps_order_and_never_exceeds_a_chunk(pieces: list[bytes], chunks: list[bytes]) -> None:
    buffer = Buffer(chunk=4)
    for piece in pieces:
        buffer.add(piece)
    assert len(buffer) == sum(map(len, pieces))
    assert drain(buffer) == chunks
    assert len(buffer) == 0


def test_buffer_passes_on_a_piece_without_copying_it() -> None:
    buffer, piece = Buffer(), b"x" * CHUNK
    buffer.add(piece)
    assert buffer.take() is piece


def test_buffer_is_full_when_it_holds_as_much_as_one_write_takes() -> None:
    buffer = Buffer(chunk=4)
    buffer.add(b"x" * (4 * BATCH - 1))
    assert not buffer.full
    buffer.add(b"x")
    assert buffer.full
    buffer.take()
    assert not buffer.full


def receive(buffer: Buffer, data: bytes, most: int = CHUNK) -> None:
    """Fill the buffer as a read from a socket would."""
    while data:
        room = buffer.room(most)
        assert 0 < len(room) <= most
        size = min(len(room), len(data))
        room[:size] = data[:size]
        buffer.fill(size)
        data = data[size:]


@pytest.mark.parametrize(
    "pieces",
    [
        [10],
        [10, 20],
        [CHUNK],
        [CHUNK + 5, 7],
        [100_000, 100_000, 100_000],
        [20_000, 20_000],
        [200_000, 10],  # the rest of that block is too small for another read
    ],
)
def test_bytes_received_into_the_buffer_are_taken_in_order(pieces: list[int]) -> None:
    """One buffer is emptied at the end, the other one after each piece."""
    content = bytes(index * 7 % 251 for index in range(sum(pieces)))
    at_once, one_by_one, taken = Buffer(), Buffer(), []
    begun = 0
    for size in pieces:
        for buffer in (at_once, one_by_one):
            receive(buffer, content[begun : begun + size])
        taken += drain(one_by_one)
        begun += size
    assert at_once.total == one_by_one.total == len(content)
    assert b"".join(drain(at_once)) == b"".join(taken) == content


def test_bytes_received_fast_are_taken_in_whole_chunks() -> None:
    buffer = Buffer()
    for _ in range(20):
        receive(buffer, bytes(50_000))
    sizes = []
    while buffer.has_pieces:
        sizes.append(len(buffer.take()))
    assert sizes == [CHUNK] * 3, "the block that is still being filled is left"
    assert len(buffer) == 1_000_000 - 3 * CHUNK


def test_added_pieces_and_received_bytes_keep_their_order() -> None:
    buffer = Buffer()
    buffer.add(b"a")
    receive(buffer, b"b" * 100_000)
    buffer.add(b"c")
    receive(buffer, b"d")
    assert b"".join(drain(buffer)) == b"a" + b"b" * 100_000 + b"cd"


def test_a_taken_chunk_does_not_change() -> None:
    """A taken chunk may still be being sent when the next bytes are received."""
    buffer, taken = Buffer(1000, Blocks(1000)), []
    for letter in b"abcdefghijklmnopqrstuvwxyz":
        receive(buffer, bytes([letter]) * 1000)
        taken.append((letter, buffer.take()))
    assert all(bytes(data) == bytes([letter]) * 1000 for letter, data in taken)


def test_a_block_is_reused_when_no_slice_of_it_is_left() -> None:
    blocks = Blocks(1000)
    first = blocks.get()
    first[0] = 1
    slice_ = first[10:20]
    del first
    second = blocks.get()
    assert second[0] == 0
    del slice_
    assert [blocks.get()[0] for _ in range(3)] == [1, 1, 1]


@pytest.mark.parametrize("idle", [0, 20])
def test_no_block_is_new_while_no_more_are_in_use_than_before(idle: int) -> None:
    """Uploads keep the bytes that they sent last, and some of them do not go on."""
    blocks = Blocks(CHUNK)
    kept = [blocks.get() for _ in range(idle)]
    in_use, new = deque(blocks.get() for _ in range(42)), 0
    for _ in range(500):
        in_use.popleft()[0] = 1
        in_use.append(blocks.get())
        new += in_use[-1][0] == 0  # those that were in use already are marked when they are given back
    assert new < 1.5 * (len(kept) + len(in_use))


def test_unused_blocks_take_a_bounded_part_of_the_memory() -> None:
    blocks = Blocks(CHUNK)
    tracemalloc.start()
    try:
        in_use = [blocks.get() for _ in range(1200)]
        in_use.clear()
        busy, _ = tracemalloc.get_traced_memory()
        in_use = [blocks.get() for _ in range(400)]
        blocks.trim(users=1)
        in_use.clear()
        idle, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert busy <= 257 * 1024 * 1024
    assert idle <= 33 * 1024 * 1024


def test_streams_that_trickle_keep_no_block_each() -> None:
    blocks = Blocks(CHUNK)
    buffers, taken = [Buffer(CHUNK, blocks) for _ in range(100)], []
    for buffer in buffers:
        receive(buffer, b"a line\n")
        taken.append(buffer.take())
    assert {type(data) for data in taken} == {bytes}


def test_a_meter_follows_a_steady_rate_and_forgets_a_burst() -> None:
    meter = Meter(100.0)
    rates = [meter.read(1000 * second, 100.0 + second) for second in range(2, 42, 2)]
    assert rates == sorted(rates)
    assert rates[-1] == pytest.approx(1000, rel=0.01)
    assert meter.read(41_000 + 500_000, 142.0) > 20_000
    assert meter.read(41_000 + 500_000, 151.0) == 0, "nothing moves any more"


def test_a_meter_read_twice_at_the_same_time_returns_the_same() -> None:
    meter = Meter(0.0)
    first = meter.read(1000, 2.0)
    assert meter.read(1000, 2.0) == pytest.approx(first, rel=0.01)


def test_a_meter_does_not_count_what_was_there_before() -> None:
    """A downloader comes back with half of the file, and then from the beginning."""
    assert Meter(0.0, total=5000).read(5000, 2.0) == 0
    assert Meter(0.0, total=0).read(100, 2.0) > 0


def test_a_meter_knows_the_rate_from_its_second_look_on() -> None:
    """It does not climb to it for seconds, which would make the time that is left too long at first."""
    meter = Meter(0.0)
    assert [meter.read(int(1000 * now), now) for now in (0.5, 1.0, 3.0)] == [1000, 1000, 1000]


def test_what_buffers_take_at_the_start_is_no_rate() -> None:
    meter = Meter(10.0, settling=1.0)
    assert meter.read(5_000_000, 10.4) == 0
    assert meter.read(6_000_000, 11.5) == 0, "nor what came until the first look after that"
    assert meter.read(6_200_000, 13.5) == 100_000
    assert meter.read(6_000_000, 15.5) >= 0, "whatever a counter does, no rate is negative"


def test_a_history_has_the_bytes_of_each_step() -> None:
    history = History(100.0)
    assert history.read() == (0,)
    for second in range(1, 26):
        history.add(1000 * second, 100.0 + second)
    assert history.read() == (10_000, 10_000, 5000)
    history.add(25_000 + 7 * 1000, 132.0)
    assert history.read() == (10_000, 10_000, 10_000, 2000)


def test_a_history_is_bounded_and_spreads_what_came_unseen() -> None:
    history = History(0.0)
    history.add(1_000_000, 100 * STEP)
    assert history.read() == (*[10_000] * (STEPS - 1), 0)
    history.add(1_000_000, 200 * STEP)
    assert history.read() == (0,) * STEPS
    history.add(900_000, 200 * STEP)
    assert len(history.read()) == STEPS


def test_a_client_that_takes_bytes_in_steps_has_a_steady_rate() -> None:
    """And one that has stopped has none, after a while."""
    meter = Meter(0.0)
    rates = [meter.read(10_000 * (second // 10), float(second)) for second in range(0, 100, 2)]
    assert all(rate == pytest.approx(1000, rel=0.01) for rate in rates[15:])
    assert meter.read(90_000, 104.0) == pytest.approx(900, rel=0.1)
    assert meter.read(90_000, 116.0) == 0


def test_a_meter_that_is_read_often_remembers_little() -> None:
    meter = Meter(0.0)
    for step in range(10_000):
        assert meter.read(10 * step, step / 100) in (0, *range(990, 1011))
    assert len(meter._steps) < 20
