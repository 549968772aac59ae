"""What became of the last bytes of a response: whether its client has all of them."""

import asyncio
import contextlib
import socket
from types import TracebackType
from typing import Self

from relay.server.connection import Connection
from relay.server.tcp import acknowledged, is_over, unacknowledged

#: Seconds that a client which has everything may take to close, before that counts as having read it.
_CLOSING = 5.0
#: Seconds between looks at how far a client is: the first, and the longest; each is twice the one before.
_LOOK_FIRST, _LOOK_MOST = 0.001, 0.05
#: Bytes to take from a client that should only be closing.
_CHATTER_MOST = 1024 * 1024


class Delivery:
    """A duplicate of a client's socket, taken before the server closes its own; a context manager.

    TCP acknowledges only that the client's kernel has the bytes.  But a process that goes away with bytes
    unread makes its kernel answer with a reset, where one that has read everything sends a plain end; the
    duplicate is there to see which of the two comes.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._socket: socket.socket | None = None
        self._changed = asyncio.Event()

    def __enter__(self) -> Self:
        if (transport := self._connection.transport) is not None:
            # uvloop hands out a pseudo socket, which has no dup(); its descriptor can be duplicated.
            owned = transport.get_extra_info("socket")
            self._socket = socket.fromfd(owned.fileno(), owned.family, owned.type)
            self._socket.setblocking(False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._socket.close()

    @property
    def behind(self) -> int:
        """Bytes that were sent and the client's machine has not acknowledged yet; 0 where that cannot be asked."""
        transport = self._connection.transport
        if self._socket is None or transport is None:
            return 0
        return int(transport.get_write_buffer_size()) + unacknowledged(self._socket)

    async def acknowledged(self, *, patience: float) -> bool:
        """Whether the client's machine has acknowledged all that was sent so far.

        Waits for as long as it takes some bytes within every `patience` seconds.
        """
        if self._socket is None:
            return True
        with self._connection.telling(self._changed.set):
            watch, taken = _Watch(self._socket, self._changed, patience), -1
            while (transport := self._connection.transport) is not None and not is_over(self._socket):
                if transport.get_write_buffer_size() or unacknowledged(self._socket):
                    if not await watch.pause():
                        return False
                # Twice the same, with a round of the event loop between: what TLS has encrypted and the kernel had no
                # room for is in a buffer that cannot be asked, and would have gone on.
                elif taken == (taken := acknowledged(self._socket)):
                    return True
                else:
                    await asyncio.sleep(0)
        return False

    async def complete(self, *, patience: float) -> bool:
        """Whether the client took everything.  Call it when the server was given the end of the response.

        Waits for as long as the client takes some bytes within every `patience` seconds; then for it to
        close, and one that has everything and does not close within 5 s counts as having read it.

        A proxy's reset tells nothing: HAProxy ends a connection so when it has the whole response, often
        before it acknowledges the end of it.  Whoever answers a proxy sends all but the last byte, and awaits
        `acknowledged`, before.
        """
        if self._socket is None:
            return True
        with self._connection.telling(self._changed.set):
            if self._connection.is_held:
                return await self._ended(self._socket, patience)
            watch = _Watch(self._socket, self._changed, patience)
            while not self._connection.is_lost:  # the server has not written all of its buffer yet
                if is_over(self._socket):
                    return self._connection.behind_proxy
                if not await watch.pause():
                    return False
        if self._connection.error is not None:
            return self._connection.behind_proxy
        return await self._closed(self._socket, patience)

    async def _ended(self, sock: socket.socket, patience: float) -> bool:
        """Waits until the client ends its side of a connection that is held open for that."""
        watch = _Watch(sock, self._changed, patience)
        while (transport := self._connection.transport) is not None:
            has_all = not transport.get_write_buffer_size() and not unacknowledged(sock)
            if has_all:
                watch.has_all()
            if not await watch.pause():
                transport.close()
                return has_all
        if self._connection.has_ended:
            if not self._connection.had_all:
                return False
        elif self._connection.error is not None:
            return self._connection.behind_proxy
        return await self._closed(sock, patience)

    async def _closed(self, sock: socket.socket, patience: float) -> bool:
        """Ends our side, and waits until the client ends its own."""
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):  # it may be reset already, which recv() tells
            sock.shutdown(socket.SHUT_WR)
        loop.add_reader(sock.fileno(), self._changed.set)
        ending, watch = _Ending(sock), _Watch(sock, self._changed, patience)
        while True:
            if ending.look() is not None:
                loop.remove_reader(sock.fileno())  # it would be readable from now on
            over = is_over(sock)  # asked before: an acknowledgement between the two would look like a reset
            has_all = unacknowledged(sock) <= 1  # our own end counts as one
            if ending.is_clean is False or (over and not has_all):
                return self._connection.behind_proxy
            if has_all and ending.is_clean:
                return True
            if has_all:
                watch.has_all()
            if not await watch.pause():
                return has_all


class _Watch:
    """Waits for a client that takes what it was sent, for as long as it takes some within every `patience` seconds."""

    def __init__(self, sock: socket.socket, changed: asyncio.Event, patience: float) -> None:
        self._socket = sock
        self._changed = changed
        self._patience = patience
        self._loop = asyncio.get_running_loop()
        self._taken = acknowledged(sock)
        self._deadline = self._loop.time() + patience
        self._look = _LOOK_FIRST
        self._is_last = False

    def has_all(self) -> None:
        """Says that the client has everything: what is left to it is to close, within 5 s."""
        if not self._is_last:
            self._is_last, self._deadline = True, self._loop.time() + _CLOSING

    async def pause(self) -> bool:
        """Waits until it is time to look again, as something may have changed.  False when patience is at its end."""
        if not self._is_last and acknowledged(self._socket) != self._taken:
            self._taken = acknowledged(self._socket)
            self._deadline, self._look = self._loop.time() + self._patience, _LOOK_FIRST
        if (left := self._deadline - self._loop.time()) <= 0:
            return False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(self._look, left)):
                await self._changed.wait()
        self._changed.clear()
        self._look = min(2 * self._look, _LOOK_MOST)
        return True


class _Ending:
    """How a peer ends its side; whatever else it says is thrown away."""

    def __init__(self, sock: socket.socket) -> None:
        #: True: with a plain end.  False: with a reset.  None: not yet.
        self.is_clean: bool | None = None
        self._socket = sock
        self._chatter = 0

    def look(self) -> bool | None:
        if self.is_clean is None:
            try:
                piece = self._socket.recv(65536)
            except BlockingIOError:
                return None
            except OSError:
                self.is_clean = False
            else:
                self._chatter += len(piece)
                if not piece or self._chatter > _CHATTER_MOST:
                    self.is_clean = True
        return self.is_clean
