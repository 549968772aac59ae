"""What became of the last bytes of a response: whether its client has all of them."""

import asyncio
import contextlib
import socket
from types import TracebackType
from typing import Self

from relay.connection import Connection
from relay.tcp import acknowledged, is_over, unacknowledged

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

    async def acknowledged(self, *, patience: float) -> bool:
        """Whether the client's machine has acknowledged all that was sent so far.

        Waits for as long as it takes some bytes within every `patience` seconds.
        """
        if self._socket is None:
            return True
        with self._connection.telling(self._changed.set):
            while (transport := self._connection.transport) is not None and not is_over(self._socket):
                if not transport.get_write_buffer_size() and not unacknowledged(self._socket):
                    return True
                if not await self._moves(self._socket, patience):
                    return False
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
            while not self._connection.is_lost:  # the server has not written all of its buffer yet
                if is_over(self._socket):
                    return self._connection.behind_proxy
                if not await self._moves(self._socket, patience):
                    return False
        if self._connection.error is not None:
            return self._connection.behind_proxy
        return await self._closed(self._socket, patience)

    async def _ended(self, sock: socket.socket, patience: float) -> bool:
        """Waits until the client ends its side of a connection that is held open for that."""
        loop = asyncio.get_running_loop()
        had_all, taken, deadline = False, acknowledged(sock), loop.time() + patience
        while (transport := self._connection.transport) is not None:
            has_all = not transport.get_write_buffer_size() and not unacknowledged(sock)
            if has_all and not had_all:
                had_all, deadline = True, loop.time() + _CLOSING
            elif not has_all and acknowledged(sock) != taken:
                taken, deadline = acknowledged(sock), loop.time() + patience
            if (left := deadline - loop.time()) <= 0:
                transport.close()
                return has_all
            await self._moves(sock, left)
        if self._connection.error is not None and not self._connection.has_ended:
            return self._connection.behind_proxy
        return await self._closed(sock, patience)

    async def _closed(self, sock: socket.socket, patience: float) -> bool:
        """Ends our side, and waits until the client ends its own."""
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):  # it may be reset already, which recv() tells
            sock.shutdown(socket.SHUT_WR)
        loop.add_reader(sock.fileno(), self._changed.set)
        ending, had_all, taken, deadline = _Ending(sock), False, acknowledged(sock), loop.time() + patience
        while True:
            if ending.look() is not None:
                loop.remove_reader(sock.fileno())  # it would be readable from now on
            over = is_over(sock)  # asked before: an acknowledgement between the two would look like a reset
            has_all = unacknowledged(sock) <= 1  # our own end counts as one
            if ending.is_clean is False or (over and not has_all):
                return self._connection.behind_proxy
            if has_all and ending.is_clean:
                return True
            if has_all and not had_all:
                had_all, deadline = True, loop.time() + _CLOSING
            elif not has_all and acknowledged(sock) != taken:
                taken, deadline = acknowledged(sock), loop.time() + patience
            if (left := deadline - loop.time()) <= 0:
                return has_all
            await self._moves(sock, left)

    async def _moves(self, sock: socket.socket, patience: float) -> bool:
        """Waits until something has changed or the client has acknowledged more; False after `patience`."""
        before, loop = acknowledged(sock), asyncio.get_running_loop()
        deadline, look = loop.time() + patience, _LOOK_FIRST
        while (left := deadline - loop.time()) > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(look, left)):
                    await self._changed.wait()
                self._changed.clear()
                return True
            if acknowledged(sock) != before or is_over(sock):
                return True
            look = min(2 * look, _LOOK_MOST)
        return False


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
