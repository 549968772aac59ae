"""Interrupt a task at a chosen step.

A step is one wait of the task, or of a task that it has started. At the chosen step the task is cancelled, or other
work runs to its end before the task goes on.
"""

import asyncio
import contextvars
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, TypeVar

T = TypeVar("T")

#: The number of a step that no task reaches.
NEVER = 0

_victim: contextvars.ContextVar["Victim | None"] = contextvars.ContextVar("victim", default=None)


class Victim:
    """A task that is cancelled when it, or a task that it has started, waits for the `at`th time.

    If `meanwhile` is given, it is called instead of cancelling, and the task goes on when its result is done.
    """

    def __init__(
        self, work: Coroutine[Any, Any, T], *, at: int, meanwhile: Callable[[], Awaitable[Any]] | None = None
    ) -> None:
        self._at = self._left = at
        self._meanwhile = meanwhile
        context = contextvars.copy_context()
        context.run(_victim.set, self)
        self.task: asyncio.Task[Any] = asyncio.get_running_loop().create_task(work, context=context)

    @property
    def was_met(self) -> bool:
        """Whether the task reached the chosen step."""
        return self._at != NEVER and self._left <= 0

    def step(self) -> Awaitable[Any] | None:
        """Count a step. Return what the task must wait for before it goes on, if anything."""
        self._left -= 1
        if self._left == 0 and self._meanwhile is not None:
            # In an empty context, the steps of `work` do not count as the victim's. If the victim is cancelled, the
            # shield lets `work` go on.
            work = _plain(self._meanwhile())
            return asyncio.shield(asyncio.get_running_loop().create_task(work, context=contextvars.Context()))
        if self._left == 0:
            self.task.cancel()
        return None


async def _plain(work: Awaitable[T]) -> T:
    return await work


def factory(
    loop: asyncio.AbstractEventLoop,
    work: Coroutine[Any, Any, T] | Generator[Any, None, T],
    /,
    context: contextvars.Context | None = None,
) -> "asyncio.Task[T]":
    """Create a task whose steps its `Victim` counts, if it belongs to one. For `loop.set_task_factory`."""
    victim = (context or contextvars.copy_context()).get(_victim)
    if victim is not None and not is_of_fakeredis(work):
        work = _stepping(work, victim.step)
    return asyncio.Task(work, loop=loop, context=context)


def is_of_fakeredis(work: object) -> bool:
    """Return whether a task's coroutine is fakeredis's server side, which stays blocked even if its client is gone."""
    return "AsyncFakeSocket" in repr(work)


@types.coroutine
def _stepping(work: Any, step: Callable[[], Awaitable[Any] | None]) -> Generator[Any, Any, T]:
    """Run `work`. Whenever it waits, call `step`, and first wait for what that returns."""
    inner, error = work.__await__(), None
    while True:
        try:
            waits_for = inner.send(None) if error is None else inner.throw(error)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
        meanwhile = step()
        try:
            if meanwhile is not None:
                yield from meanwhile.__await__()
            yield waits_for
            error = None
        except BaseException as thrown:
            error = thrown
