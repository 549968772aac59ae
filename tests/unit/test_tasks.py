"""Tasks that are ended by `stop`, `first` and `Guard`, limited by `Limit` and `occurs`, and woken by `Signal`."""

import asyncio
import gc
import socket
import ssl
import time

import pytest

from relay.tasks import Guard, Limit, Signal, first, occurs, report_unhandled, stop


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


@pytest.mark.parametrize("times", [0, 1])
async def test_a_watch_that_ends_first_ends_the_work(times: int) -> None:
    async def watch() -> str:
        return "watch"

    guard = Guard(watch, after=60)
    asyncio.get_running_loop().call_later(0.01, guard.begin)
    assert await guard.run(stubborn(times)) == "watch"
    assert await Guard(watch, after=0.01).run(endless()) == "watch"
    await asyncio.sleep(0)  # nothing is left that cancels this task
    assert len(asyncio.all_tasks()) == 1


async def test_work_that_ends_first_ends_its_watch_or_needs_none() -> None:
    async def work() -> str:
        await asyncio.sleep(0.02)
        return "work"

    async def never() -> str:
        raise AssertionError

    assert await Guard(never, after=60).run(work()) == "work"
    assert await Guard(lambda: stubborn(1), after=0).run(work()) == "work"
    assert len(asyncio.all_tasks()) == 1


async def test_what_a_watch_raises_is_raised() -> None:
    async def watch() -> str:
        raise KeyError

    with pytest.raises(KeyError):
        await Guard(watch, after=0).run(endless())


async def test_a_guard_does_not_swallow_a_cancellation_by_somebody_else() -> None:
    async def watch() -> str:
        task.cancel()
        return "watch"

    task: asyncio.Task[str | None] = asyncio.create_task(Guard(watch, after=0).run(stubborn(1)))
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(asyncio.all_tasks()) == 1


async def test_a_limit_ends_a_block_that_takes_longer() -> None:
    with pytest.raises(TimeoutError), Limit(0.01):
        await asyncio.sleep(3600)
    task = asyncio.current_task()
    assert task is not None
    assert not task.cancelling()


async def test_a_limit_leaves_a_block_alone_that_is_over_in_time() -> None:
    with Limit(0.01):
        await asyncio.sleep(0)
    await asyncio.sleep(0.05)  # longer than the limit


@pytest.mark.parametrize("seconds", [0.01, 3600])
async def test_a_limit_does_not_swallow_a_cancellation_by_somebody_else(seconds: float) -> None:
    async def limited() -> None:
        with Limit(seconds):
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                await asyncio.sleep(0.05)  # the limit passes meanwhile, if it is the short one
                raise

    waiting = asyncio.create_task(limited())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_the_inner_of_two_limits_ends_its_own_block_only() -> None:
    with Limit(3600):
        with pytest.raises(TimeoutError), Limit(0):
            await asyncio.sleep(3600)
        await asyncio.sleep(0)


async def test_an_event_occurs_in_time_or_does_not() -> None:
    event = asyncio.Event()
    assert not await occurs(event, within=0.01)
    asyncio.get_running_loop().call_soon(event.set)
    assert await occurs(event, within=3600)
    assert await occurs(event, within=0)


async def test_what_arrives_while_the_process_stands_still_is_in_time() -> None:
    """Its timers are due before it has read, and it must not take that for silence."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:

        async def receive() -> bytes:
            with Limit(0.1):
                return await asyncio.get_running_loop().sock_recv(ours, 10)

        receiving = asyncio.create_task(receive())
        await asyncio.sleep(0.01)
        theirs.send(b"here")
        time.sleep(0.5)
        assert await receiving == b"here"


async def test_more_time_is_given_once() -> None:
    async def work_in_bursts() -> None:
        while True:
            time.sleep(0.2)
            await asyncio.sleep(0.1)

    with pytest.raises(TimeoutError), Limit(0.05):
        await work_in_bursts()


async def test_a_signal_is_consumed_by_whoever_waits_for_it() -> None:
    signal, loop = Signal(), asyncio.get_running_loop()
    signal.set()
    assert signal.is_set
    assert await signal.wait(0)
    assert not signal.is_set
    assert not await signal.wait(0.01)
    assert not await signal.wait(-1)  # the time is over
    loop.call_soon(signal.set)
    assert await signal.wait(3600)
    loop.call_soon(signal.set)
    assert await signal.wait()
    signal.set()
    signal.clear()
    assert not await signal.wait(0)


async def test_a_signal_that_comes_when_its_waiter_is_cancelled_is_kept() -> None:
    signal = Signal()
    waiting = asyncio.create_task(signal.wait(3600))
    await asyncio.sleep(0)
    waiting.cancel()
    signal.set()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await signal.wait(0)


@pytest.mark.parametrize(
    ("error", "is_logged"), [(ssl.SSLError("late"), False), (ConnectionError(), False), (ValueError(), True)]
)
async def test_only_connections_may_fail_without_anybody_waiting(
    error: Exception, is_logged: bool, caplog: pytest.LogCaptureFixture
) -> None:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(report_unhandled)
    loop.create_future().set_exception(error)
    gc.collect()
    assert ("never retrieved" in caplog.text) is is_logged


async def test_a_task_that_fails_without_anybody_waiting_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> None:
        raise OSError

    asyncio.get_running_loop().set_exception_handler(report_unhandled)
    await asyncio.wait([asyncio.create_task(fail())])
    gc.collect()
    assert "never retrieved" in caplog.text
