"""The SHA-256 of a file, computed while its bytes pass by. Pure."""

import hashlib


class Checksum:
    """Takes in a file's bytes from the first one on. Those that pass again after a break count once."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        #: How many bytes it has taken in.
        self.done = 0

    def add(self, offset: int, piece: bytes) -> None:
        """Take in a piece that begins at a byte offset. Raise ValueError if there is a gap before it."""
        known = self.done - offset
        if known < 0:
            raise ValueError(f"{-known} bytes are missing before byte {offset}")
        if known < len(piece):
            self._hash.update(memoryview(piece)[known:])
            self.done = offset + len(piece)

    @property
    def hex(self) -> str:
        """The SHA-256 of what it has taken in, in hexadecimal."""
        return self._hash.hexdigest()
