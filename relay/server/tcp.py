"""What Linux tells of a TCP connection beyond its bytes: that the peer has ended it, and what it has acknowledged."""

import array
import asyncio
import contextlib
import fcntl
import select
import socket
import struct
import termios
from collections.abc import Callable, Iterator

#: Where `struct tcp_info` of Linux's include/uapi/linux/tcp.h has tcpi_bytes_acked, 64 bits.
_BYTES_ACKED_AT = 120
#: Linux's TCP_ESTABLISHED and TCP_CLOSE, the first byte of `struct tcp_info` where neither side has ended, or both.
_TCP_ESTABLISHED, _TCP_CLOSE = 1, 7
#: A client whose machine vanished without a word is noticed after so many seconds of silence, and then so many
#: probes without an answer, so many seconds apart: a minute in all.  Not TCP_USER_TIMEOUT: that would also end a
#: download whose client lives and takes nothing for a while, which is for RELAY_STALL to judge.
_KEEPALIVE = {socket.TCP_KEEPIDLE: 30, socket.TCP_KEEPCNT: 3, socket.TCP_KEEPINTVL: 10}
#: Bytes that a process reads ahead at most, of all connections together.
_AHEAD_TOTAL = 256 * 1024 * 1024


class Hangups:
    """Tells of clients that have closed their end, of connections that nobody reads: one epoll for all.

    uvicorn stops reading a connection when 64 KiB of body are buffered, and an event loop does not poll what it
    does not read.  Linux's EPOLLRDHUP tells of the peer's end regardless, once all before it is in our kernel.
    Where it is not, the connection has to be read on: how much of that is in memory is accounted for here, too.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[], None]] = {}
        asyncio.get_running_loop().add_reader(self._epoll.fileno(), self._tell)
        #: What tells how many bytes are read ahead, of each connection of which some were.
        self.read_ahead: dict[object, Callable[[], int]] = {}

    @property
    def may_read_ahead(self) -> bool:
        """Whether there is room in memory for more of it."""
        return sum(count() for count in self.read_ahead.values()) < _AHEAD_TOTAL

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._epoll.fileno())
        self._epoll.close()

    @contextlib.contextmanager
    def watching(self, descriptor: int, callback: Callable[[], None]) -> Iterator[None]:
        """Calls `callback` once when the peer of this socket has closed or reset."""
        self._callbacks[descriptor] = callback
        self._epoll.register(descriptor, select.EPOLLRDHUP | select.EPOLLONESHOT)
        try:
            yield
        finally:
            if self._callbacks.get(descriptor) is callback:
                del self._callbacks[descriptor]
                with contextlib.suppress(OSError):  # closed meanwhile: the kernel has forgotten it already
                    self._epoll.unregister(descriptor)

    def _tell(self) -> None:
        for descriptor, _ in self._epoll.poll(0):
            if (callback := self._callbacks.get(descriptor)) is not None:
                callback()


def probe_when_silent(sock: socket.socket) -> None:
    """Has the kernel find out whether a silent peer is still there; one that is not looks like one that left."""
    with contextlib.suppress(OSError):  # no TCP, or gone already
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _KEEPALIVE.items():
            sock.setsockopt(socket.IPPROTO_TCP, option, value)


def reset_when_closed(sock: socket.socket) -> None:
    """Have the kernel end the connection with a reset, instead of a plain end, when the socket is closed."""
    with contextlib.suppress(OSError):  # gone already
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def unacknowledged(sock: socket.socket) -> int:
    """Linux's SIOCOUTQ: bytes given to the kernel which the peer's TCP has not acknowledged.

    After `shutdown` the end counts as one more.  0 where it cannot be asked.
    """
    queue = array.array("i", [0])
    try:
        fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, queue)
    except OSError:
        return 0
    return queue[0]


def acknowledged(sock: socket.socket) -> int:
    """Bytes the peer's TCP has acknowledged since the connection began.  0 where it cannot be asked."""
    info = _info(sock, _BYTES_ACKED_AT + 8)
    return int(struct.unpack_from("=Q", info, _BYTES_ACKED_AT)[0]) if len(info) >= _BYTES_ACKED_AT + 8 else 0


def is_over(sock: socket.socket) -> bool:
    """Whether the connection has ended in both directions, or was reset."""
    return _info(sock, 1)[:1] == bytes([_TCP_CLOSE])


def has_ended(sock: socket.socket) -> bool:
    """Whether the peer has ended its side, or all is over; False where it cannot be asked."""
    return _info(sock, 1)[:1] not in (b"", bytes([_TCP_ESTABLISHED]))


def _info(sock: socket.socket, size: int) -> bytes:
    try:
        return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, size)
    except (OSError, AttributeError):
        return b""
