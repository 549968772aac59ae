"""What Linux knows about a TCP connection besides its bytes: whether the peer has closed it, what it acknowledged."""

import array
import asyncio
import contextlib
import select
import socket
import struct
from collections.abc import Callable

from relay.server.discard import Discards
from relay.server.probe import ReadAhead

with contextlib.suppress(ImportError):  # Windows has neither; `relay serve` says there that it needs Linux
    import fcntl
    import termios

#: Offset of tcpi_bytes_acked, 64 bits, in `struct tcp_info` of Linux's include/uapi/linux/tcp.h.
_BYTES_ACKED_AT = 120
#: How often in a row the kernel has to have sent something again without an answer. The first time is after 0.2 s on a
#: fast line, and each time takes twice as long as the one before.
_UNANSWERED = 2
#: Linux's TCP_ESTABLISHED (neither side has closed) and TCP_CLOSE (both have, or it was reset): the first byte of
#: `struct tcp_info`.
_TCP_ESTABLISHED, _TCP_CLOSE = 1, 7


class Hangups:
    """Reports clients that have closed connections which nobody reads. One epoll serves all of a process.

    uvicorn stops reading a connection when 64 KiB of its body are buffered, and an event loop does not poll what it
    does not read. Linux's EPOLLRDHUP reports the peer's close regardless, once everything before it is in our kernel.
    Until it is, the connection has to be read further (see `probe`); `read_ahead` accounts for the memory of that.
    `discards` are what clients send after their last response.
    """

    def __init__(self) -> None:
        self.read_ahead = ReadAhead()
        self.discards = Discards()
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[], None]] = {}
        asyncio.get_running_loop().add_reader(self._epoll.fileno(), self._report)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._epoll.fileno())
        self._epoll.close()

    def watch(self, descriptor: int, callback: Callable[[], None]) -> None:
        """Call `callback` once when the peer of this socket has closed or reset the connection, until `forget`."""
        self._callbacks[descriptor] = callback
        self._epoll.register(descriptor, select.EPOLLRDHUP | select.EPOLLONESHOT)

    def forget(self, descriptor: int, callback: Callable[[], None]) -> None:
        """Call it no more. Do nothing if the descriptor is that of another socket by now."""
        if self._callbacks.get(descriptor) is callback:
            del self._callbacks[descriptor]
            with contextlib.suppress(OSError):  # it was closed meanwhile, and the kernel has forgotten it
                self._epoll.unregister(descriptor)

    def _report(self) -> None:
        for descriptor, _ in self._epoll.poll(0):
            if (callback := self._callbacks.get(descriptor)) is not None:
                callback()


def reset_when_closed(sock: socket.socket) -> None:
    """Have the kernel end the connection with a reset, instead of a plain end, when the socket is closed."""
    with contextlib.suppress(OSError):  # gone already
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def unacknowledged(sock: socket.socket) -> int:
    """Return the bytes given to the kernel that the peer's TCP has not acknowledged (Linux's SIOCOUTQ).

    After `shutdown`, our own close counts as one more. Return 0 if the kernel does not know.
    """
    queue = array.array("i", [0])
    try:
        fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, queue)
    except OSError:
        return 0
    return queue[0]


def acknowledged(sock: socket.socket) -> int:
    """Return the bytes that the peer's TCP has acknowledged since it connected; 0 if the kernel does not know."""
    info = _info(sock, _BYTES_ACKED_AT + 8)
    return int(struct.unpack_from("=Q", info, _BYTES_ACKED_AT)[0]) if len(info) >= _BYTES_ACKED_AT + 8 else 0


def has_stopped_answering(sock: socket.socket) -> bool:
    """Return whether the peer's TCP acknowledges nothing any more, neither bytes nor probes of its closed window.

    These are icsk_retransmits and icsk_probes_out, which an acknowledgement sets to 0. So a peer that takes nothing and
    is there does not count, however long that lasts.
    """
    info = _info(sock, 4)
    return len(info) == 4 and max(info[2], info[3]) >= _UNANSWERED  # noqa: PLR2004 (its size)


def is_closed(sock: socket.socket) -> bool:
    """Return whether both sides have closed the connection, or it was reset."""
    return _info(sock, 1)[:1] == bytes([_TCP_CLOSE])


def peer_has_closed(sock: socket.socket) -> bool:
    """Return whether the peer has closed its side, or the connection is gone; False if the kernel does not know."""
    return _info(sock, 1)[:1] not in (b"", bytes([_TCP_ESTABLISHED]))


def _info(sock: socket.socket, size: int) -> bytes:
    try:
        return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, size)
    except (OSError, AttributeError):
        return b""
