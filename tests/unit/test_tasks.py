"""Ending tasks with `stop` and `first`."""

import asyncio

import pytest

from relay.tasks import first, stop


async def endless() -> str | None:
    while True:
        await asyncio.sleep(3600)


async def stubborn(times: int) -> str | None:
    """Swallow this many cancellations."""
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            if times == 0:
                raise
            times -= 1


@pytest.mark.parametrize("times", [0, 1, 3])
async def test_stop_ends_even_tasks_that_swallow_cancellations(times: int) -> None:
    tasks = [asyncio.create_task(stubborn(times)), asyncio.create_task(endless())]
    await asyncio.sleep(0)
    await asyncio.wait_for(stop(tasks), 10)
    assert all(task.cancelled() for task in tasks)


async def test_first_returns_the_first_result_and_ends_the_others() -> None:
    async def undecided() -> str | None:
        return None

    async def decides() -> str | None:
        return "this"

    assert await first(undecided(), stubborn(1), decides()) == "this"
    assert len(asyncio.all_tasks()) == 1


async def test_first_raises_what_is_raised() -> None:
    async def fails() -> str | None:
        raise KeyError

    with pytest.raises(KeyError):
        await first(endless(), fails())
    assert len(asyncio.all_tasks()) == 1


async def test_cancelling_first_ends_all_its_tasks() -> None:
    waiting: asyncio.Task[object] = asyncio.create_task(first(endless(), stubborn(1)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert len(asyncio.all_tasks()) == 1


@pytest.mark.parametrize("times", [1, 3])
async def test_stopping_first_ends_what_runs_in_a_first_within_it(times: int) -> None:
    """While the inner one waits for a task that swallows its cancellation, it is cancelled again itself."""
    waiting: asyncio.Task[object] = asyncio.create_task(first(endless(), first(endless(), stubborn(times))))
    for _ in range(4):
        await asyncio.sleep(0)
    assert len(asyncio.all_tasks()) == 6
    await asyncio.wait_for(stop([waiting]), 10)
    assert waiting.cancelled()
    assert len(asyncio.all_tasks()) == 1
