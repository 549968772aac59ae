"""TODO."""

from collections.abc import Iterator, Sequence

from relay.buffers import Bytes


def chunk_id(end: int) -> str:
    """The ID of the chunk that ends at byte offset `end`."""
    return f"{end}-0"


def end_id(total: int) -> str:
    """The ID of the uploader's last entry, after `total` bytes."""
    return f"{total}-1"


def trim_id(position: int) -> str:
    """The lowest ID to keep for a reader that has everything up to byte offset `position`."""
    return f"{position}-1"


def offset_of(entry_id: bytes) -> int:
    """The byte offset in an entry's ID."""
    return int(entry_id.partition(b"-")[0])


def ends(chunks: Sequence[Bytes], *, end: int) -> Iterator[int]:
    """The byte offset of each chunk's end, where `end` is that of the last."""
    offset = end - sum(map(len, chunks))
    for chunk in chunks:
        offset += len(chunk)
        yield offset


def follows(*, position: int, end: int, size: int) -> bool:
    """Whether a chunk of `size` bytes ending at `end` continues at `position`; False is a gap, or a repeat."""
    return end - size == position
