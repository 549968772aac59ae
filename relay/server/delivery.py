"""Find out what became of the last bytes of a response: whether its client has all of them."""

import asyncio
import contextlib
import socket
from time import monotonic
from types import TracebackType
from typing import Self

from relay.server.connection import Connection
from relay.server.tcp import acknowledged, is_closed, unacknowledged
from relay.tasks import occurs

#: Maximum seconds that a client which has everything may take to close; after that it counts as having read it.
_CLOSING = 5.0
#: Seconds until the first look at how far a client is, and maximum seconds between two looks; each pause is twice as
#: long as the one before.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.001, 0.05
#: Maximum bytes taken from a client that should only be closing.
_CHATTER_MAXIMUM = 1024 * 1024


class Delivery:
    """A duplicate of a client's socket, taken before the server closes its own; a context manager.

    TCP acknowledges only that the client's kernel has the bytes. But a process that goes away with bytes unread makes
    its kernel send a reset, while one that has read everything just closes. The duplicate is there to see which of the
    two comes.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._socket: socket.socket | None = None
        #: Set when there may be something new to see.
        self._changed = asyncio.Event()
        #: Whether that is set when there is something to read.
        self._is_reading = False

    def __enter__(self) -> Self:
        if (owned := self._connection.socket) is not None:
            # uvloop hands out a pseudo socket, which has no dup(); its descriptor can be duplicated. Nothing here
            # depends on the family, and uvloop would look it up anew.
            self._socket = socket.fromfd(owned.fileno(), socket.AF_INET, socket.SOCK_STREAM)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._socket is not None:
            self._read(self._socket, wanted=False)
            self._socket.close()

    async def acknowledged(self, *, patience: float) -> bool:
        """Wait until the client's kernel has acknowledged everything that was sent so far. Return whether it has.

        Give up when the client has taken nothing for `patience` seconds, or has left.
        """
        if self._socket is None:
            return not self._connection.has_socket
        with self._connection.on_lost(self._changed.set):
            watch, taken = _Watch(self._socket, self._changed, patience), -1
            while (transport := self._connection.transport) is not None and not is_closed(self._socket):
                if transport.get_write_buffer_size() or unacknowledged(self._socket):
                    if not await watch.pause():
                        return False
                # The same figure twice, with a round of the event loop in between: whatever TLS has encrypted and the
                # kernel had no room for is in a buffer whose size nobody can ask for, and would have moved on.
                elif taken == (taken := acknowledged(self._socket)):
                    return True
                else:
                    await asyncio.sleep(0)
        return False

    async def complete(self, *, patience: float) -> bool:
        """Wait until the client has closed. Return whether it took everything.

        Call this when the server was given the end of the response. Give up when the client has taken nothing for
        `patience` seconds. A client that has everything and does not close within 5 s counts as having read it.

        A proxy's reset says nothing: HAProxy ends a connection that way when it has the whole response, often before
        it acknowledges the end of it. So whoever answers a proxy sends all but the last byte, and awaits
        `acknowledged`, before.
        """
        if self._socket is None:
            return not self._connection.has_socket
        with self._connection.on_lost(self._changed.set):
            if self._connection.is_held:
                return await self._wait_for_held_client(self._socket, patience)
            if not self._connection.is_lost:
                await asyncio.sleep(0)  # the server closes its socket in the next round of the event loop
            watch = _Watch(self._socket, self._changed, patience)
            while not self._connection.is_lost:  # the server has not written all of its buffer yet
                if is_closed(self._socket):
                    return self._connection.behind_proxy
                if not await watch.pause():
                    return False
        if self._connection.error is not None:
            return self._connection.behind_proxy
        return await self._close(self._socket, patience)

    async def _wait_for_held_client(self, sock: socket.socket, patience: float) -> bool:
        """Wait until the client closes a connection that is held open for that. Return whether it took everything."""
        watch = _Watch(sock, self._changed, patience)
        while (transport := self._connection.transport) is not None:
            has_all = not transport.get_write_buffer_size() and not unacknowledged(sock)
            if has_all:
                watch.expect_close()
            if not await watch.pause():
                transport.close()
                return has_all
        if self._connection.tls_closed:
            if not self._connection.had_everything:
                return False
        elif self._connection.error is not None:
            return self._connection.behind_proxy
        return await self._close(sock, patience)

    async def _close(self, sock: socket.socket, patience: float) -> bool:
        """Close our side, and wait until the client closes its own. Return whether it took everything."""
        with contextlib.suppress(OSError):  # it may be reset already, which recv() will say
            sock.shutdown(socket.SHUT_WR)
        self._changed.clear()
        await asyncio.sleep(0)  # by now most clients have closed, and need neither a reader nor a timer
        peer, watch = _PeerClose(sock), _Watch(sock, self._changed, patience)
        while True:
            peer.look()
            closed = is_closed(sock)  # asked before: an acknowledgement between the two would look like a reset
            has_all = unacknowledged(sock) <= 1  # our own close counts as one
            if peer.is_clean is False or (closed and not has_all):
                return self._connection.behind_proxy
            if has_all and peer.is_clean:
                return True
            if has_all:
                watch.expect_close()
            self._read(sock, wanted=peer.is_clean is None)  # once the peer has closed, it is readable all the time
            if not await watch.pause():
                return has_all

    def _read(self, sock: socket.socket, *, wanted: bool) -> None:
        """Notice whenever there is something to read from the socket, or do not any more."""
        if wanted and not self._is_reading:
            asyncio.get_running_loop().add_reader(sock.fileno(), self._changed.set)
        elif self._is_reading and not wanted:
            asyncio.get_running_loop().remove_reader(sock.fileno())
        self._is_reading = wanted


class _Watch:
    """Waits for a client that takes what it was sent, as long as it takes some within every `patience` seconds."""

    def __init__(self, sock: socket.socket, changed: asyncio.Event, patience: float) -> None:
        self._socket = sock
        self._changed = changed
        self._patience = patience
        #: Bytes that the client had acknowledged at the last look. The first look begins the time.
        self._taken = -1
        self._deadline = 0.0
        self._pause = _FIRST_PAUSE
        self._expects_close = False

    def expect_close(self) -> None:
        """Give the client, which has everything, 5 s from the first call to close."""
        if not self._expects_close:
            self._expects_close, self._deadline = True, monotonic() + _CLOSING

    async def pause(self) -> bool:
        """Wait until it is time to look again, as something may have changed. Return False if the time is over."""
        now = monotonic()
        if not self._expects_close and (taken := acknowledged(self._socket)) != self._taken:
            self._taken, self._deadline, self._pause = taken, now + self._patience, _FIRST_PAUSE
        if (left := self._deadline - now) <= 0:
            return False
        await occurs(self._changed, within=min(self._pause, left))
        self._changed.clear()
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)
        return True


class _PeerClose:
    """How a peer closes its side. Whatever else it sends is thrown away."""

    def __init__(self, sock: socket.socket) -> None:
        #: True: it has just closed. False: it has sent a reset. None: neither yet.
        self.is_clean: bool | None = None
        self._socket = sock
        self._chatter = 0

    def look(self) -> None:
        """Read from the socket, if the peer has not closed yet."""
        if self.is_clean is not None:
            return
        try:
            piece = self._socket.recv(65536, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            self.is_clean = False
        else:
            self._chatter += len(piece)
            if not piece or self._chatter > _CHATTER_MAXIMUM:
                self.is_clean = True
