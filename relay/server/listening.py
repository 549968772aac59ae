"""Listen on the address and port of the settings, before anything else is started. Nothing is imported from relay."""

import asyncio
import socket
import sys
from collections.abc import Callable

#: A client whose machine vanished without a word is noticed after a minute: after 30 s of silence the kernel sends
#: probes, 10 s apart, and gives up when three have no reply. Such a client then looks as if it had left. Not
#: TCP_USER_TIMEOUT: that would also end a download whose client lives and takes nothing for a while, and RELAY_STALL
#: decides about that.
_KEEPALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPCNT": 3, "TCP_KEEPINTVL": 10}
#: Maximum number of clients of one listener that are let in in each round of the event loop. See `Queue`.
_AT_ONCE = 16
#: Offset of tcpi_unacked, 32 bits, in `struct tcp_info` of Linux's include/uapi/linux/tcp.h. For a listener, it is the
#: number of clients that wait to be accepted.
_UNACKED_AT = 24


def listen(host: str, port: int, *, backlog: int) -> list[socket.socket]:
    """Return sockets that listen on all addresses of the host; on all of this machine if it is empty.

    Raise OSError if one of them cannot: another process has the port, the port needs privileges, or the host has no
    such address. uvicorn would find that out only after the node has started, and said so.
    """
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    listeners: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            listener = socket.socket(family, kind, protocol)
            listeners.append(listener)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:  # or `::` would take the port of 0.0.0.0 as well, which may be listed, too
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            _probe_silent_clients(listener)
            listener.bind(address)
            # Two sockets may be bound to one port, but not listen on it.
            listener.listen(backlog)
            listener.setblocking(False)
    except OSError:
        for listener in listeners:
            listener.close()
        raise
    return listeners


def _probe_silent_clients(listener: socket.socket) -> None:
    """Have the kernel find out whether silent clients are still there. Linux sets what is set here for each connection
    of the listener."""
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEPALIVE.items():
        listener.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


class Queue:
    """The clients that wait to be let in by one listener, behind the one whom the event loop lets in.

    In one round of the event loop, libuv accepts one client from each socket (libuv/libuv#3696), and each
    stream moves up to a window. So with many streams a round takes long, and of those who come together the first would
    be done before the last are let in: of 200 downloads at once, the slowest took 11 times as long as the fastest. So
    this lets in others in the same round. 16 duplicates of the listener would do that, too. But all of them would be
    woken for each client, and an attempt to accept costs 3 us even if the queue is empty: 50 us for each client.
    """

    def __init__(self, listener: socket.socket, let_in: Callable[[socket.socket], None]) -> None:
        self._listener = listener.dup()  # the event loop takes each descriptor for one purpose only
        self._let_in = let_in
        asyncio.get_running_loop().add_reader(self._listener.fileno(), self._look)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._listener.fileno())
        self._listener.close()

    def __len__(self) -> int:
        """Return the number of clients that wait."""
        info = self._listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _UNACKED_AT + 4)
        return int.from_bytes(info[_UNACKED_AT:], sys.byteorder)

    def _look(self) -> None:
        for _ in range(min(len(self), _AT_ONCE) - 1):  # the event loop knows of the first, too
            try:
                client, _ = self._listener.accept()
            except OSError:
                return  # there are no descriptors left; the event loop deals with that
            self._let_in(client)


def shown(listener: socket.socket) -> str:
    """Return where a socket listens, as a URL has it."""
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
