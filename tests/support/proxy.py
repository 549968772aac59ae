"""A TCP proxy between a node and its Redis. A test can make it fail while connections are open."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

#: Maximum number of bytes forwarded at a time.
_PIECE = 64 * 1024


class Proxy:
    """Forwards to `target`, a port of this machine, and fails in the ways that its attributes select.

    It runs in a thread of its own. The test's thread may set the attributes at any time; they apply to open
    connections too.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        #: Delay of each piece, in seconds, in both directions.
        self.delay = 0.0
        #: Maximum rate, in bytes per second, in each direction of each connection; 0 means unlimited.
        self.rate = 0
        #: Whether bytes are held back while connections stay open, as on a dead link. They are forwarded afterwards.
        self.is_silent = False
        #: The node of this name gets nothing through, as if `is_silent` were set for its connections alone.
        self.silences = b""
        #: How many connections, the oldest first, are dead for ever, because of `forget`. The others work.
        self._forgotten = 0
        #: How many connections were accepted so far.
        self.accepted = 0
        #: The node at the other end of each connection, by the connection's number.
        self._names: dict[int, bytes] = {}
        #: Pieces for Redis that contain these bytes are held back, even if their connection is closed meanwhile.
        self.holds = b""
        #: Number of pieces that are held back, and not forwarded yet.
        self.held = 0
        #: Whether new connections are accepted and closed at once.
        self.refuses = False
        #: Called for every piece of a reply. If it returns true, the piece is lost and its connection closed, although
        #: Redis has carried out the command.
        self.loses: Callable[[], bool] = lambda: False
        #: Number of replies lost so far.
        self.lost = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server = self._do(asyncio.start_server(self._accept, "127.0.0.1", 0))
        self.port: int = self._server.sockets[0].getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"

    def cut(self) -> None:
        """Reset every connection that is open now."""
        self._do(self._cut())

    def forget(self) -> None:
        """Hold back everything on the connections that are open now, as a firewall does that has lost its table."""
        self._forgotten = self.accepted

    @contextlib.contextmanager
    def silent(self) -> Iterator[None]:
        self.is_silent = True
        try:
            yield
        finally:
            self.is_silent = False

    def heal(self) -> None:
        """End every failure that is switched on."""
        self.delay, self.rate, self.is_silent, self.refuses, self.loses = 0.0, 0, False, False, lambda: False
        self.holds = b""

    def close(self) -> None:
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open the connection that the next client gets."""
        return await asyncio.open_connection("127.0.0.1", self.target)

    def _do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    async def _cut(self) -> None:
        for writer in tuple(self._writers):
            writer.transport.abort()

    async def _close(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._cut()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        task = self._loop.create_task(self._serve(self.accepted, reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers = [writer]
        self._names[number] = b""
        try:
            while self.is_silent:
                await asyncio.sleep(0.01)
            if self.refuses:
                return
            target_reader, target_writer = await self.connect()
            writers.append(target_writer)
            self._writers.update(writers)
            with contextlib.suppress(asyncio.CancelledError):  # by close()
                async with asyncio.TaskGroup() as both:
                    both.create_task(self._forward(number, reader, target_writer, replies=False))
                    both.create_task(self._forward(number, target_reader, writer, replies=True))
        except* (OSError, Ended):
            pass
        finally:
            for each in writers:
                self._writers.discard(each)
                each.transport.abort()

    async def _hold(self, piece: bytes) -> None:
        self.held += 1
        while self.holds and self.holds in piece:
            await asyncio.sleep(0.01)

    def _is_silenced(self, number: int) -> bool:
        return self._names[number] == self.silences

    async def _forward(
        self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, replies: bool
    ) -> None:
        while piece := await reader.read(_PIECE):
            if not replies and b"SETNAME" in piece:
                self._names[number] = piece.split(b"SETNAME\r\n", 1)[1].split(b"\r\n")[1]
            while self.is_silent or number <= self._forgotten or (self.silences and self._is_silenced(number)):
                await asyncio.sleep(0.01)
            is_held = not replies and bool(self.holds) and self.holds in piece
            if is_held:
                await self._hold(piece)
            await asyncio.sleep(self.delay + (len(piece) / self.rate if self.rate else 0))
            if replies and self.loses():
                self.lost += 1
                break
            writer.write(piece)
            await writer.drain()
            self.held -= is_held
        await flush(writer)
        raise Ended


async def flush(writer: asyncio.StreamWriter) -> None:
    """Wait until the kernel has everything that was written: the end of the connection would throw the rest away."""
    writer.transport.set_write_buffer_limits(0)
    await writer.drain()


class Ended(Exception):
    """Raised when one direction of a connection has ended, to end the other direction too."""
