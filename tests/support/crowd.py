"""Very many clients as plain sockets, in one thread: whoever opens thousands must not cost more than they do."""

import contextlib
import resource
import selectors
import socket
from collections.abc import Iterator

import pytest


def need_descriptors(count: int) -> None:
    """Raises this process's limit on open files; skips the test where the machine does not allow that many."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most < count:
        pytest.skip(f"{count} open files are not allowed here (ulimit -Hn is {most})")
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def request(method: str, path: str, **headers: object) -> bytes:
    """The head of a request; `headers` with underscores for hyphens."""
    lines = [f"{method} {path} HTTP/1.1", "Host: crowd"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


@contextlib.contextmanager
def crowd(port: int, requests: list[bytes], *, receive_buffer: int = 0) -> Iterator[list[socket.socket]]:
    """A connection for each request, which has been sent; `receive_buffer` in bytes, 0 for the system's."""
    sockets: list[socket.socket] = []
    try:
        for head in requests:
            client = socket.socket()
            sockets.append(client)
            client.settimeout(30)
            if receive_buffer:  # before it connects, or the window that it offers is larger
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            client.connect(("127.0.0.1", port))
            client.sendall(head)
        yield sockets
    finally:
        for client in sockets:
            client.close()


def read_until(client: socket.socket, end: bytes) -> bytes:
    """What comes, up to and with `end`, or all until the other side closes."""
    got = bytearray()
    while not got.endswith(end) and (piece := client.recv(1)):
        got += piece
    return bytes(got)


class Selection:
    """Sockets of which those that can be read (or written) are handed out."""

    def __init__(self, sockets: list[socket.socket], event: int) -> None:
        self._selector = selectors.DefaultSelector()
        for index, client in enumerate(sockets):
            client.setblocking(False)
            self._selector.register(client, event, index)

    def ready(self, timeout: float) -> list[tuple[int, socket.socket]]:
        """The index of each ready socket, and the socket; waits up to `timeout` seconds for one."""
        return [(key.data, key.fileobj) for key, _ in self._selector.select(timeout)]  # type: ignore[misc]

    def close(self) -> None:
        self._selector.close()
