"""Counting the steps of a task and of those it starts, and cancelling it at one of them."""

import asyncio
import contextvars
import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any, TypeVar

T = TypeVar("T")

#: A step to which nothing comes.
NEVER = 0

_victim: contextvars.ContextVar["Victim | None"] = contextvars.ContextVar("victim", default=None)


class Victim:
    """A task that is cancelled when it, or a task it has started, waits for the `at`th time."""

    def __init__(self, work: Coroutine[Any, Any, T], *, at: int) -> None:
        self._at = self._left = at
        context = contextvars.copy_context()
        context.run(_victim.set, self)
        self.task: asyncio.Task[Any] = asyncio.get_running_loop().create_task(work, context=context)

    @property
    def was_cancelled(self) -> bool:
        """Whether it came to that step."""
        return self._at != NEVER and self._left <= 0

    def step(self) -> None:
        self._left -= 1
        if self._left == 0:
            self.task.cancel()


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
def _stepping(work: Any, step: Callable[[], None]) -> Generator[Any, Any, T]:
    """Runs `work`, and calls `step` whenever it waits."""
    inner, error = work.__await__(), None
    while True:
        try:
            waits_for = inner.send(None) if error is None else inner.throw(error)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
        step()
        try:
            yield waits_for
            error = None
        except BaseException as thrown:
            error = thrown
