"""A TCP proxy between a node and its Redis that a test can make fail, while connections are open."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

#: Bytes that are forwarded at a time.
_PIECE = 64 * 1024


class Proxy:
    """Forwards to `target`, a port of this machine, and fails as it is told.  A thread of its own runs it.

    Set the attributes at any time, from the test's thread; they hold for open connections too.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        #: Seconds by which each piece is delayed, in both directions.
        self.delay = 0.0
        #: Bytes a second in each direction of each connection; 0: as fast as it goes.
        self.rate = 0
        #: Whether nothing passes and nobody is told, as behind a dead link; what was sent passes afterwards.
        self.is_silent = False
        #: Whether connections are refused: accepted, and closed at once.
        self.refuses = False
        #: Asked at every reply: whether it is lost, and its connection with it.  The command was carried out.
        self.loses: Callable[[], bool] = lambda: False
        #: Replies lost so far.
        self.lost = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server = self._do(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port: int = self._server.sockets[0].getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"

    def cut(self) -> None:
        """Cuts every connection that is open now, with a reset."""
        self._do(self._cut())

    @contextlib.contextmanager
    def silent(self) -> Iterator[None]:
        self.is_silent = True
        try:
            yield
        finally:
            self.is_silent = False

    def heal(self) -> None:
        """Ends all that was told."""
        self.delay, self.rate, self.is_silent, self.refuses, self.loses = 0.0, 0, False, False, lambda: False

    def close(self) -> None:
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

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

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if (task := asyncio.current_task()) is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        writers = [writer]
        try:
            while self.is_silent:
                await asyncio.sleep(0.01)
            if self.refuses:
                return
            target_reader, target_writer = await asyncio.open_connection("127.0.0.1", self.target)
            writers.append(target_writer)
            self._writers.update(writers)
            async with asyncio.TaskGroup() as both:
                both.create_task(self._forward(reader, target_writer, replies=False))
                both.create_task(self._forward(target_reader, writer, replies=True))
        except* (OSError, _End):
            pass
        finally:
            for each in writers:
                self._writers.discard(each)
                each.transport.abort()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, replies: bool) -> None:
        while piece := await reader.read(_PIECE):
            while self.is_silent:
                await asyncio.sleep(0.01)
            await asyncio.sleep(self.delay + (len(piece) / self.rate if self.rate else 0))
            if replies and self.loses():
                self.lost += 1
                break
            writer.write(piece)
            await writer.drain()
        raise _End


class _End(Exception):
    """One direction of a connection is over, and so both are."""
