"""Ending asyncio tasks, for certain."""

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

T = TypeVar("T")

#: Seconds after which a task that was cancelled and goes on is cancelled again.
_AGAIN = 0.2


async def stop(tasks: Iterable["asyncio.Task[Any]"]) -> None:
    """Cancels the tasks until all have ended.

    Once is not enough: a library may swallow a cancellation (measured: redis-py 8.1 with fakeredis 2.40, in the
    moment in which a connection is made), and a loop around it would then go on for ever.
    """
    pending = {task for task in tasks if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=_AGAIN)


async def first(*work: Coroutine[Any, Any, T | None]) -> T:
    """Runs all side by side until one answers something or raises; then stops the others, and waits for that.

    One that answers None is done without deciding anything; at least one has to decide.
    """
    tasks = [asyncio.create_task(each) for each in work]
    try:
        pending = set(tasks)
        while True:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            # In the order given, so that what is answered does not hang on a set's order when two are done.
            for task in (task for task in tasks if task in done):
                if (answer := task.result()) is not None:
                    return answer
    finally:
        await stop(tasks)
        for task in tasks:
            if not task.cancelled():
                task.exception()  # it has been seen: only the first counts
