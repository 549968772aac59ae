"""Listen on the address and port of the settings, before anything else is started. Nothing is imported from relay."""

import socket
from collections.abc import Iterable

#: A client whose machine vanished without a word is noticed after a minute: after 30 s of silence the kernel sends
#: probes, 10 s apart, and gives up when three have no reply. Such a client then looks as if it had left. Not
#: TCP_USER_TIMEOUT: that would also end a download whose client lives and takes nothing for a while, and RELAY_STALL
#: decides about that.
_KEEPALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPCNT": 3, "TCP_KEEPINTVL": 10}
#: Number of clients that connect to one address in each round of the event loop. See `repeated`.
_AT_ONCE = 16


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


def repeated(listeners: Iterable[socket.socket]) -> list[socket.socket]:
    """Return the sockets, each with duplicates, all of which are to be served.

    In one round of the event loop, libuv accepts one client from each socket (libuv/libuv#3696), and each
    stream moves up to a window. So with many streams a round takes long, and of those who come together the first would
    be done before the last are let in: of 200 downloads at once, the slowest took 11 times as long as the fastest. The
    duplicates share one queue, and each accepts one client more. One that finds the queue empty costs a system call.
    """
    return [one for listener in listeners for one in (listener, *(listener.dup() for _ in range(_AT_ONCE - 1)))]


def shown(listener: socket.socket) -> str:
    """Return where a socket listens, as a URL has it."""
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
