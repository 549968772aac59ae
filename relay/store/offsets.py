"""Byte offsets as the IDs of stream entries.

The ID of a chunk is `OFFSET-0`, where OFFSET is the byte offset after the chunk. Redis refuses an ID that is not above
the last one, so a repeated write cannot double bytes. If an entry's offset less its size is not the reader's position,
a chunk is missing. The last entry of a stream has the field `end`, and the sequence number after that of the entry
before it: `TOTAL-1` for a whole upload.
"""

from collections.abc import Iterator, Sequence

from relay.buffers import Bytes


def chunk_id(offset: int) -> str:
    """Return the ID of the chunk that reaches up to byte offset `offset`."""
    return f"{offset}-0"


def end_id(total: int) -> str:
    """Return the ID of the uploader's last entry, after `total` bytes."""
    return f"{total}-1"


def trim_id(position: int) -> str:
    """Return the lowest ID to keep for a reader that has everything up to byte offset `position`."""
    return f"{position}-1"


def offset_of(entry_id: bytes) -> int:
    """Return the byte offset in an entry's ID."""
    return int(entry_id.partition(b"-")[0])


def offsets_after(chunks: Sequence[Bytes], *, last: int) -> Iterator[int]:
    """Yield the byte offset after each chunk, given that after the last one."""
    offset = last - sum(map(len, chunks))
    for chunk in chunks:
        offset += len(chunk)
        yield offset


def follows(*, position: int, offset: int, size: int) -> bool:
    """Return whether a chunk of `size` bytes, up to byte offset `offset`, continues at `position`.

    If it does not, it is a repeat, or there is a gap before it.
    """
    return offset - size == position
