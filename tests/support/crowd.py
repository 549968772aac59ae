"""Thousands of clients as plain sockets in one thread, so that the test costs less than the node it measures."""

import contextlib
import resource
import selectors
import socket
from collections.abc import Iterator

import pytest


def need_descriptors(count: int) -> None:
    """Raise this process's limit on open files. Skip the test if the machine does not allow `count`."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most < count:
        pytest.skip(f"{count} open files are not allowed here (ulimit -Hn is {most})")
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def request(method: str, path: str, **headers: object) -> bytes:
    """Return the head of a request. Header names are written with underscores for hyphens."""
    lines = [f"{method} {path} HTTP/1.1", "Host: crowd"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


@contextlib.contextmanager
def crowd(port: int, requests: list[bytes], *, receive_buffer: int = 0) -> Iterator[list[socket.socket]]:
    """Open a connection for each request and send the request.

    `receive_buffer` is the socket's receive buffer, in bytes; 0 leaves the system's default.
    """
    sockets: list[socket.socket] = []
    try:
        for head in requests:
            client = socket.socket()
            sockets.append(client)
            client.settimeout(30)
            if receive_buffer:  # before connecting: afterwards the socket has already offered a larger TCP window
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            client.connect(("127.0.0.1", port))
            client.sendall(head)
        yield sockets
    finally:
        for client in sockets:
            client.close()


def read_until(client: socket.socket, end: bytes) -> bytes:
    """Return the bytes received up to and including `end`, or all of them if the other side closes first."""
    got = bytearray()
    while not got.endswith(end) and (piece := client.recv(1)):
        got += piece
    return bytes(got)


class Selection:
    """A set of sockets that reports which of them are ready for one event: reading or writing."""

    def __init__(self, sockets: list[socket.socket], event: int) -> None:
        self._selector = selectors.DefaultSelector()
        for index, client in enumerate(sockets):
            client.setblocking(False)
            self._selector.register(client, event, index)

    def ready(self, timeout: float) -> list[tuple[int, socket.socket]]:
        """Return each ready socket with its index. Wait up to `timeout` seconds until at least one is ready."""
        return [(key.data, key.fileobj) for key, _ in self._selector.select(timeout)]  # type: ignore[misc]

    def close(self) -> None:
        self._selector.close()
