"""A client that can send bytes that no HTTP library would send."""

import contextlib
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit


class Raw:
    """One connection to a node, on a plain socket."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.socket = socket.create_connection((parts.hostname or "", parts.port or 80), timeout=30)

    def send(self, data: bytes) -> None:
        """Send the data. Ignore that the server may have closed: the tests look at what it sent before that."""
        with contextlib.suppress(ConnectionError):
            self.socket.sendall(data)

    def send_until_refused(self, piece: bytes, most: int) -> int:
        """Send the piece repeatedly until the server closes or `most` bytes are sent. Return the number sent."""
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < most:
                self.socket.sendall(piece)
                sent += len(piece)
        return sent

    def head(self) -> bytes:
        """Return the header of the next response, or what arrived before the server closed."""
        answer = b""
        while b"\r\n\r\n" not in answer and (piece := self.read()):
            answer += piece
        return answer

    def rest(self) -> bytes:
        """Return everything that arrives until the server closes."""
        answer = b""
        while piece := self.read():
            answer += piece
        return answer

    def read(self) -> bytes:
        """Return the next bytes, or none if the server has closed."""
        try:
            return self.socket.recv(65536)
        except ConnectionError:
            return b""


@contextlib.contextmanager
def raw(url: str, data: bytes = b"") -> Iterator[Raw]:
    """Open a connection and send `data` on it."""
    client = Raw(url)
    try:
        client.send(data)
        yield client
    finally:
        client.socket.close()
