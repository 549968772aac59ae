"""Run asyncio tasks to their end, or end them for certain."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine, Iterable
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")

#: Seconds after which a task that ignores its cancellation is cancelled again.
_AGAIN = 0.2


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
    tasks = [asyncio.create_task(each) for each in work]
    try:
        pending = set(tasks)
        while True:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            # Take them in the order given: if two are done, the result must not depend on the order of a set.
            for task in (task for task in tasks if task in done):
                if (result := task.result()) is not None:
                    return result
    finally:
        await stop(tasks)
        for task in tasks:
            if not task.cancelled():
                task.exception()  # mark it as retrieved: only the first one counts


@contextlib.asynccontextmanager
async def beside(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run the work while the block runs, and stop it when the block ends."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        await stop([task])


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

    async def stop(self) -> None:
        """Cancel all tasks."""
        await stop(self._tasks)
