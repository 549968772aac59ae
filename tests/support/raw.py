"""A client that sends what no library would."""

import contextlib
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit


class Raw:
    """One connection to a node, by hand."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.socket = socket.create_connection((parts.hostname or "", parts.port or 80), timeout=30)

    def send(self, data: bytes) -> None:
        """Sends; a server that has closed is no error here, since what counts is what it said."""
        with contextlib.suppress(ConnectionError):
            self.socket.sendall(data)

    def send_until_refused(self, piece: bytes, most: int) -> int:
        """Sends the piece again and again, until the server closes or `most` bytes are out; answers how many."""
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < most:
                self.socket.sendall(piece)
                sent += len(piece)
        return sent

    def head(self) -> bytes:
        """The next answer's header; or what came before the server closed."""
        answer = b""
        while b"\r\n\r\n" not in answer and (piece := self.read()):
            answer += piece
        return answer

    def rest(self) -> bytes:
        """All that comes until the server closes."""
        answer = b""
        while piece := self.read():
            answer += piece
        return answer

    def read(self) -> bytes:
        """Some bytes; none once the server has closed."""
        try:
            return self.socket.recv(65536)
        except ConnectionError:
            return b""


@contextlib.contextmanager
def raw(url: str, data: bytes = b"") -> Iterator[Raw]:
    """A connection on which `data` was sent."""
    client = Raw(url)
    try:
        client.send(data)
        yield client
    finally:
        client.socket.close()
