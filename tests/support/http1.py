"""One HTTP/1.1 request on a plain socket, with all its answers: the interim ones, and one that comes before the end."""

import contextlib
import select
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

#: Seconds after which a connection without an answer counts as broken.
_TIMEOUT = 60.0


class Broken(Exception):
    """The connection ended without an answer."""


@dataclass
class Answer:
    """A response, its headers in lower case, and the interim ones before it."""

    status: int
    headers: dict[str, str]
    body: bytes = b""
    interim: list["Answer"] = field(default_factory=list)


class Request:
    """A connection with one request on it."""

    def __init__(
        self, url: str, method: str, headers: Mapping[str, str], *, on_interim: Callable[[Answer], None] | None = None
    ) -> None:
        parts = urlsplit(url)
        self._method = method
        self._received = b""
        self._interim: list[Answer] = []
        self._on_interim = on_interim or (lambda _: None)
        try:
            self.socket = socket.create_connection((parts.hostname or "", parts.port or 80), timeout=_TIMEOUT)
        except OSError as error:
            raise Broken from error
        lines = [f"{method} {parts.path} HTTP/1.1", f"Host: {parts.netloc}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        try:
            self._send("\r\n".join([*lines, "", ""]).encode())
        except Broken:
            self.socket.close()
            raise

    def __enter__(self) -> "Request":
        return self

    def __exit__(self, *exception: object) -> None:
        self.socket.close()

    def send_body(self, pieces: Iterable[bytes], *, is_chunked: bool = False) -> None:
        """Send the body, but stop as soon as there is a final answer."""
        for piece in pieces:
            if self._has_answer():
                return
            self._send(b"%x\r\n%b\r\n" % (len(piece), piece) if is_chunked else piece)
        if is_chunked:
            self._send(b"0\r\n\r\n")

    def wait_interim(self, seconds: float) -> None:
        """Wait for the first interim answer, but not longer than that. Raise Broken."""
        if not self._interim and select.select([self.socket], [], [], seconds)[0]:
            self._has_answer()

    def answer(self) -> Answer:
        """Return the final answer. Raise Broken."""
        return self._with_body(self.head())

    def head(self) -> Answer:
        """Return the final answer without its body. Raise Broken."""
        while (head := self._head()) is None:
            self._receive()
        return head

    def body(self, answer: Answer) -> Iterator[bytes]:
        """Yield the body of the final answer as it arrives. Raise Broken if it ends too early."""
        self._received = self._received.partition(b"\r\n\r\n")[2]
        if "content-length" in answer.headers:
            yield from self._take(int(answer.headers["content-length"]))
            return
        while size := int(self._line(), 16):
            yield from self._take(size)
            self._line()

    def _take(self, size: int) -> Iterator[bytes]:
        while size:
            if not self._received:
                self._receive()
            piece, self._received = self._received[:size], self._received[size:]
            size -= len(piece)
            yield piece

    def _line(self) -> bytes:
        while b"\r\n" not in self._received:
            self._receive()
        line, _, self._received = self._received.partition(b"\r\n")
        return line

    def _send(self, data: bytes) -> None:
        try:
            self.socket.sendall(data)
        except OSError as error:
            with contextlib.suppress(Broken):
                while self._head() is None:
                    self._receive()  # it may have answered before it closed
                return
            raise Broken from error

    def _has_answer(self) -> bool:
        while select.select([self.socket], [], [], 0)[0]:
            self._receive()
            if self._head() is not None:
                return True
        return False

    def _receive(self) -> None:
        try:
            data = self.socket.recv(65536)
        except OSError as error:
            raise Broken from error
        if not data:
            raise Broken
        self._received += data

    def _head(self) -> Answer | None:
        """Return the head of the final answer, if it has come; take the interim ones before it."""
        while b"\r\n\r\n" in self._received:
            head, _, rest = self._received.partition(b"\r\n\r\n")
            first, *lines = head.decode("latin-1").split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            answer = Answer(int(first.split(" ")[1]), headers)
            if answer.status >= 200:
                answer.interim = self._interim
                return answer
            self._received = rest
            self._interim.append(answer)
            self._on_interim(answer)
        return None

    def _with_body(self, answer: Answer) -> Answer:
        if self._method == "HEAD" or answer.status in (204, 304):
            return answer
        size = int(answer.headers["content-length"])
        start = self._received.index(b"\r\n\r\n") + 4
        while len(self._received) < start + size:
            self._receive()
        answer.body = self._received[start : start + size]
        return answer


def pieces_of(data: bytes, size: int = 64 * 1024) -> Iterator[bytes]:
    """Yield the data in pieces."""
    for at in range(0, len(data), size):
        yield data[at : at + size]
