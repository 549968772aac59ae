"""Counting the steps of a task and of those it starts; at one of them it is cancelled, or something else happens."""

import asyncio
import contextvars
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, TypeVar

T = TypeVar("T")

#: A step to which nothing comes.
NEVER = 0

_victim: contextvars.ContextVar["Victim | None"] = contextvars.ContextVar("victim", default=None)


class Victim:
    """A task that is cancelled when it, or a task it has started, waits for the `at`th time.

    With `meanwhile` it is not cancelled: it goes on when that is done.
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
        """Whether it came to that step."""
        return self._at != NEVER and self._left <= 0

    def step(self) -> Awaitable[Any] | None:
        """Takes note of a step; answers what has to be done before the next."""
        self._left -= 1
        if self._left == 0 and self._meanwhile is not None:
            work = _plain(self._meanwhile())  # whose steps are not the victim's, nor is its end
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
    """A task factory under which `Victim`s are told of their steps.  For `loop.set_task_factory`."""
    victim = (context or contextvars.copy_context()).get(_victim)
    if victim is not None and not is_of_fakeredis(work):
        work = _stepping(work, victim.step)
    return asyncio.Task(work, loop=loop, context=context)


def is_of_fakeredis(work: object) -> bool:
    """Whether a task's coroutine stands for the server: that one blocks on, whatever becomes of its client."""
    return "AsyncFakeSocket" in repr(work)


@types.coroutine
def _stepping(work: Any, step: Callable[[], Awaitable[Any] | None]) -> Generator[Any, Any, T]:
    """Runs `work`, and calls `step` whenever it waits, and waits for what that answers."""
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
