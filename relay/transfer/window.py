"""TODO."""

from collections import deque

#: Bytes for which an entry counts beside its data, bytes of a node of entries, and what a node counts for beside them,
#: as MEMORY USAGE of Redis 7.0 has it.
_ENTRY, _NODE, _TREE = 64, 4096, 512


#: Bytes that the windows of all uploads of a node come to before each is made smaller; and its least, in chunks.
_WINDOWS, _WINDOW_LEAST = 96 * 1024 * 1024, 3


def share(window: int, *, chunk: int, uploads: int) -> int:
    """The window of each, in bytes, where so many uploads stream; `window` is the most.

    What many have under way is in no cache any more, and who came first would be done before the others begin.
    """
    return max(min(window, _WINDOWS // max(1, uploads)), min(window, _WINDOW_LEAST * chunk))


class Window:
    """What an upload has written to Redis and its downloader has not acknowledged: `size` bytes and one chunk at most.

    It counts the memory that Redis needs for them.
    """

    def __init__(self, size: int) -> None:
        #: Byte offsets.
        self.written = self.acknowledged = 0
        self.size = size
        #: The offset of each entry's end, and the memory that it takes.
        self._entries: deque[tuple[int, int]] = deque()
        self._taken = 0

    @property
    def is_open(self) -> bool:
        """Whether another chunk may be written."""
        return self._taken < self.size

    def write(self, size: int) -> int:
        """Takes note of a chunk of `size` bytes; answers the offset of its end."""
        self.written += size
        memory = footprint(size)
        self._entries.append((self.written, memory))
        self._taken += memory
        return self.written

    def acknowledge(self, position: int) -> None:
        """Takes note that the downloader has everything up to byte offset `position`."""
        self.acknowledged = max(self.acknowledged, position)
        while self._entries and self._entries[0][0] <= self.acknowledged:
            self._taken -= self._entries.popleft()[1]


def footprint(size: int) -> int:
    """Bytes of Redis's memory that a stream entry with `size` bytes of data takes.

    Entries lie in nodes of `stream-node-max-bytes` or one entry.  Each is an allocation, for which jemalloc has four
    sizes from each power of two to the next (https://jemalloc.net/jemalloc.3.html#size_classes), and a key of a tree.
    """
    entry = size + _ENTRY
    count = max(1, _NODE // entry)
    node = count * entry
    step = 1 << (node.bit_length() - 3)
    return (-(-node // step) * step + _TREE) // count
