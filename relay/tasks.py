"""Run asyncio tasks to their end, or end them for certain, and limit the time that they wait."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from types import TracebackType
from typing import Any, TypeVar, cast

T = TypeVar("T")
R = TypeVar("R")

#: Seconds after which a task that ignores its cancellation is cancelled again.
_AGAIN = 0.2
#: Seconds for which what has arrived may still be read after the time is over.
_MOMENT = 0.01


async def stop(tasks: Iterable["asyncio.Task[Any]"]) -> None:
    """Cancel the tasks until all have ended.

    Once is not enough: a library may swallow a cancellation (measured: redis-py 8.1 with fakeredis 2.40, in the
    moment in which a connection is made), and a loop around it would then run for ever.
    """
    pending, cancelled = {task for task in tasks if not task.done()}, False
    while pending:
        for task in pending:
            task.cancel()
        try:
            await asyncio.wait(pending, timeout=_AGAIN)
        except asyncio.CancelledError:
            # By a `stop` around this one, which loses patience, too. No task may be left behind.
            cancelled = True
        pending = {task for task in pending if not task.done()}
    if cancelled:
        raise asyncio.CancelledError


async def first(*work: Coroutine[Any, Any, T | None]) -> T:
    """Run all side by side until one returns a result or raises; then stop the others, and wait until they have ended.

    A coroutine that returns None is done without a result. At least one has to return one, or raise.
    """
    tasks, done = [asyncio.create_task(each) for each in work], set[asyncio.Task[T | None]]()
    try:
        pending = set(tasks)
        while True:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            # Take them in the order given: if two are done, the result must not depend on the order of a set.
            for result in map(asyncio.Task.result, filter(done.__contains__, tasks)):
                if result is not None:
                    return result
    finally:
        await stop(tasks)
        mark_retrieved(*tasks)  # only the first one counts
        # What a task has raised refers to this frame. If this referred to the task, only the garbage collector would
        # free the two.
        tasks.clear()
        done.clear()


def mark_retrieved(*tasks: "asyncio.Task[Any]") -> None:
    """Let asyncio not complain if nobody handles what the tasks have raised."""
    for task in tasks:
        if not task.cancelled():
            task.exception()


class Guard:
    """Runs work in the present task, and beside it a watch that may end it.

    A watch costs more than all that a small transfer does. So it begins only when `begin` is called, or after `after`
    seconds.
    """

    __slots__ = ("_after", "_cancels", "_watch", "_watching", "_worker")

    def __init__(self, watch: Callable[[], Coroutine[Any, Any, T]], *, after: float) -> None:
        self._watch = watch
        self._after = after
        self._watching: asyncio.Task[Any] | None = None
        #: The task that works, while it does, and how often it was cancelled from here.
        self._worker: asyncio.Task[Any] | None = None
        self._cancels = 0

    def begin(self) -> None:
        """Watch from now on, if the work is under way."""
        if self._worker is not None and self._watching is None:
            self._watching = self._worker.get_loop().create_task(self._watch())
            self._watching.add_done_callback(lambda _: self._cancel())

    def _cancel(self) -> None:
        """Cancel the work, and once more if it ignores that: see `stop`."""
        if self._worker is not None:
            self._cancels += 1
            self._worker.cancel()
            asyncio.get_running_loop().call_later(_AGAIN, self._cancel)

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Return what the work returns; or if the watch ends first, return or raise what that does."""
        loop = asyncio.get_running_loop()
        task = cast("asyncio.Task[Any]", asyncio.current_task(loop))
        before, self._worker = task.cancelling(), task
        timer = loop.call_later(self._after, self.begin)
        try:
            return await work
        except asyncio.CancelledError:
            self._forgive(task)
            # If somebody else has cancelled the task, too, that counts.
            if self._watching is None or not self._watching.done() or task.cancelling() > before:
                raise
            return cast(T, self._watching.result())
        finally:
            timer.cancel()
            self._worker = None
            if self._watching is not None:
                self._forgive(task)
                await stop([self._watching])
                mark_retrieved(self._watching)
                self._watching = None  # as in `first`

    def _forgive(self, task: "asyncio.Task[Any]") -> None:
        """Cancel the task no more, and let it forget that it was."""
        self._worker = None
        while self._cancels:
            self._cancels -= 1
            task.uncancel()


class Limit:
    """Raise TimeoutError if the block takes longer than so many seconds.

    This is `asyncio.timeout` without the means to look at the deadline and to move it, at half the cost: there are
    several of them in a small transfer.

    When the time is over, the block gets a moment more: at least 10 ms, and as long as this process has stood still
    until then, because thousands of clients came or left at once, or because it was stopped. What the block waits for
    may have arrived meanwhile, but the event loop runs the timers that are due before it reads.
    """

    __slots__ = ("_cancelling", "_deadline", "_is_over", "_loop", "_seconds", "_task", "_timer")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._is_over = False

    def __enter__(self) -> None:
        self._loop = loop = asyncio.get_running_loop()
        self._task = cast("asyncio.Task[Any]", asyncio.current_task(loop))
        self._cancelling = self._task.cancelling()
        self._timer = loop.call_at(deadline := loop.time() + self._seconds, self._expire)
        #: When the time is over, in the event loop's seconds; None in the moment after that.
        self._deadline: float | None = deadline

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._timer.cancel()
        # If somebody else has cancelled the task, too, that counts.
        if self._is_over and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def _expire(self) -> None:
        if self._deadline is not None:
            more = max(_MOMENT, self._loop.time() - self._deadline)
            self._deadline = None
            self._timer = self._loop.call_later(min(more, self._seconds), self._expire)
            return
        self._is_over = True
        self._task.cancel()


class Signal:
    """A wake-up for one task: what it waits for has happened, or may have.

    This is an `asyncio.Event` for one waiter, with a limit to its patience. A wait costs two thirds as much, and no
    queue of waiters takes memory, of which thousands of uploads that wait would need much.
    """

    __slots__ = ("_waiter", "is_set")

    def __init__(self) -> None:
        #: Whether there is a wake-up that was not consumed.
        self.is_set = False
        self._waiter: asyncio.Future[None] | None = None

    def set(self) -> None:
        self.is_set = True
        if self._waiter is not None:
            _release(self._waiter)

    def clear(self) -> None:
        """Consume a wake-up, if there is one."""
        self.is_set = False

    async def wait(self, timeout: float | None = None) -> bool:
        """Wait for a wake-up, up to `timeout` seconds if that is given, and consume it. Return False if none came."""
        if not self.is_set:
            loop = asyncio.get_running_loop()
            self._waiter = waiter = loop.create_future()
            timer = loop.call_later(timeout, _release, waiter) if timeout is not None else None
            try:
                await waiter
            finally:
                self._waiter = None
                if timer is not None:
                    timer.cancel()
        woken, self.is_set = self.is_set, False
        return woken


def _release(waiter: "asyncio.Future[None]") -> None:
    """Let the waiter go on, unless it does already."""
    if not waiter.done():
        waiter.set_result(None)


async def occurs(event: asyncio.Event, *, within: float) -> bool:
    """Wait until the event is set, for at most `within` seconds. Return whether it is."""
    if not event.is_set():
        with contextlib.suppress(TimeoutError), Limit(within):
            await event.wait()
    return event.is_set()


@contextlib.asynccontextmanager
async def beside(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run the work while the block runs, and stop it when the block ends."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        await stop([task])


def report_unhandled(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log an error that nobody has handled, as asyncio does; except that of a connection whose caller has given up.

    If a connection fails in the moment in which its caller is cancelled, uvloop leaves the error in a future of its own
    (measured: uvloop 0.23, a TLS handshake). It would be logged with a traceback, although nobody waits for it.
    """
    future = context.get("future")
    if isinstance(context.get("exception"), OSError) and future is not None and not isinstance(future, asyncio.Task):
        return
    loop.default_exception_handler(context)


class Background:
    """Tasks that run to their end, beyond the requests that began them."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def spawn(self, work: Coroutine[Any, Any, R]) -> "asyncio.Task[R]":
        """Start a task. `wait` waits for it."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def wait(self) -> None:
        """Wait until all tasks have ended."""
        while self._tasks:
            await asyncio.wait(self._tasks)
