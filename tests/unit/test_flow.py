"""Offsets, window, buffer."""

import pytest

from relay.flow import CHUNK, Buffer, chunk_id, end_id, follows, may_write, offset_of, trim_id


def test_an_entry_id_is_the_offset_after_the_chunk() -> None:
    assert chunk_id(261632) == "261632-0"
    assert end_id(261632) == "261632-1"
    assert offset_of(b"261632-0") == 261632


def test_the_end_marker_stands_after_the_chunk_it_follows_and_survives_its_trimming() -> None:
    def order(entry_id: str) -> tuple[int, ...]:
        return tuple(int(part) for part in entry_id.split("-"))

    assert order(chunk_id(10)) < order(trim_id(10)) <= order(end_id(10))
    assert order(end_id(0)) > (0, 0)  # Redis refuses 0-0


@pytest.mark.parametrize(
    ("written", "acknowledged", "window", "may"),
    [
        (0, 0, 1, True),
        (1, 0, 1, False),
        (1, 1, 1, True),
        (99, 0, 100, True),
        (100, 0, 100, False),
        (350, 251, 100, True),
        (351, 251, 100, False),
    ],
)
def test_window(written: int, acknowledged: int, window: int, may: bool) -> None:
    assert may_write(written=written, acknowledged=acknowledged, window=window) is may


@pytest.mark.parametrize(("position", "end", "size", "fits"), [(0, 5, 5, True), (5, 9, 3, False), (5, 9, 5, False)])
def test_follows(position: int, end: int, size: int, fits: bool) -> None:
    assert follows(position=position, end=end, size=size) is fits


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


def test_buffer_hands_on_a_piece_without_copying_it() -> None:
    buffer, piece = Buffer(), b"x" * CHUNK
    buffer.add(piece)
    assert buffer.take() is piece


def test_buffer_is_full_at_two_chunks() -> None:
    buffer = Buffer(chunk=4)
    buffer.add(b"1234567")
    assert not buffer.full
    buffer.add(b"8")
    assert buffer.full
    buffer.take()
    assert not buffer.full
