"""The window: how much of an upload may be in Redis and not yet acknowledged. Pure."""

from collections import deque

#: What Redis 7.0's MEMORY USAGE reports, in bytes: the overhead of an entry, the size of a node of entries, and the
#: overhead of a node.
_ENTRY, _NODE, _TREE = 64, 4096, 512
#: Maximum sum of the windows of a node's uploads, in bytes, before each window is made smaller.
_TOTAL_MAX = 96 * 1024 * 1024
#: Minimum window, in chunks.
_CHUNKS_MIN = 3
#: The same two for uploads whose downloaders are on the same node.
_LOCAL_TOTAL_MAX = 48 * 1024 * 1024
_LOCAL_CHUNKS_MIN = 1


def window_size(largest: int, *, chunk: int, uploads: int, is_local: bool = False) -> int:
    """Return the window of each upload in bytes when so many `uploads` stream; `largest` is the setting.

    With many streams at full windows, the bytes in flight fit into no cache any more, and the streams that began first
    would be done before the others get going.

    `is_local`: the downloader is on the same node. Then nothing is gained by several chunks in flight, but each round
    of the event loop moves a window of each stream, and whoever joins meanwhile needs a dozen rounds for that.
    """
    total, chunks = (_LOCAL_TOTAL_MAX, _LOCAL_CHUNKS_MIN) if is_local else (_TOTAL_MAX, _CHUNKS_MIN)
    return max(min(largest, total // max(1, uploads)), min(largest, chunks * chunk))


class Window:
    """What an upload has written and its downloader has not acknowledged: at most `size` bytes and one chunk.

    It counts the memory that Redis allocates for the chunks, not the chunks' own bytes.
    """

    def __init__(self, size: int, *, start: int = 0) -> None:
        self.size = size
        #: For each entry in flight: the byte offset after it, and its memory in bytes.
        self._entries: deque[tuple[int, int]] = deque()
        self.restart(start)

    def restart(self, start: int) -> None:
        """Begin again, with nothing in flight."""
        #: The byte offsets up to which chunks were written, and acknowledged.
        self.written = self.acknowledged = start
        self._entries.clear()
        self._used = 0

    @property
    def is_open(self) -> bool:
        """Whether another chunk may be written."""
        return self._used < self.size

    def write(self, size: int) -> int:
        """Record a chunk of `size` bytes. Return the byte offset after it."""
        self.written += size
        memory = footprint(size)
        self._entries.append((self.written, memory))
        self._used += memory
        return self.written

    def acknowledge(self, position: int) -> None:
        """Record that the downloader has everything up to byte offset `position`."""
        self.acknowledged = max(self.acknowledged, position)
        while self._entries and self._entries[0][0] <= self.acknowledged:
            self._used -= self._entries.popleft()[1]


def footprint(size: int) -> int:
    """Return the memory, in bytes, that Redis allocates for a stream entry with `size` bytes of data.

    Redis puts entries into nodes of `stream-node-max-bytes`, or one larger entry. Each node is one allocation and one
    key of a tree. jemalloc has four allocation sizes from each power of two to the next
    (https://jemalloc.net/jemalloc.3.html#size_classes).
    """
    entry = size + _ENTRY
    count = max(1, _NODE // entry)
    node = count * entry
    step = 1 << (node.bit_length() - 3)
    return (-(-node // step) * step + _TREE) // count
