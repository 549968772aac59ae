"""Listen on the address and port of the settings, before anything else is started. Nothing is imported from relay."""

import asyncio
import contextlib
import socket
import sys
from collections.abc import Awaitable, Callable
from time import monotonic

#: A client whose machine vanished without a word is noticed after a minute: after 30 s of silence the kernel sends
#: probes, 10 s apart, and gives up when three have no reply. Such a client then looks as if it had left. Not
#: TCP_USER_TIMEOUT: that would also end a download whose client lives and takes nothing for a while, and RELAY_STALL
#: decides about that.
_KEEPALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPCNT": 3, "TCP_KEEPINTVL": 10}
#: Number of clients of a listener that are let in in each round of the event loop while there is a crowd. See `Crowd`.
_AT_ONCE = 16
#: Minimum number of clients that are a crowd if they wait to be let in.
_CROWD = 8
#: Seconds without a crowd until it is over.
_CALM = 1.0
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


class Crowd:
    """Has a listener served 16 times over while many clients wait to be let in.

    In one round of the event loop, libuv accepts one client from each socket (libuv/libuv#3696), and each
    stream moves up to a window. So with many streams a round takes long, and of those who come together the first would
    be done before the last are let in: of 200 downloads at once, the slowest took 11 times as long as the fastest.
    Duplicates of the listener share its queue, and each accepts one client more. But all of them wake up for each
    client, and an attempt to accept costs 3 us even if the queue is empty, 50 us for a client that comes alone. So they
    are served only until no crowd has been seen for a second.
    """

    def __init__(
        self, listener: socket.socket, serve: Callable[[socket.socket], Awaitable[asyncio.AbstractServer]]
    ) -> None:
        self._listener = listener.dup()  # the event loop takes each descriptor for one purpose only
        self._serve = serve
        self._seen_at = 0.0
        self._serving: asyncio.Task[None] | None = None
        asyncio.get_running_loop().add_reader(self._listener.fileno(), self._look)

    def __len__(self) -> int:
        """Return the number of clients that wait to be let in."""
        info = self._listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _UNACKED_AT + 4)
        return int.from_bytes(info[_UNACKED_AT:], sys.byteorder)

    async def close(self) -> None:
        """Serve the duplicates no longer."""
        asyncio.get_running_loop().remove_reader(self._listener.fileno())
        if self._serving is not None:
            self._serving.cancel()
            await asyncio.wait([self._serving])
        self._listener.close()

    def _look(self) -> None:
        if len(self) >= _CROWD:
            self._seen_at = monotonic()
            if self._serving is None or self._serving.done():
                self._serving = asyncio.create_task(self._serve_duplicates())

    async def _serve_duplicates(self) -> None:
        servers: list[asyncio.AbstractServer] = []
        try:
            with contextlib.suppress(OSError):  # there are no descriptors left
                for _ in range(_AT_ONCE - 1):
                    servers.append(await self._serve(self._listener.dup()))
            while (left := self._seen_at + _CALM - monotonic()) > 0:  # noqa: ASYNC110 (it is no poll)
                await asyncio.sleep(left)
        finally:
            for server in servers:
                server.close()


def shown(listener: socket.socket) -> str:
    """Return where a socket listens, as a URL has it."""
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
