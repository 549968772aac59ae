"""Turns are taken while some are free, and then passed on in the order in which they are waited for."""

import asyncio

from relay.store.turns import Turns


async def waiting(turns: Turns, count: int) -> "list[asyncio.Task[None]]":
    tasks = [asyncio.create_task(turns.wait()) for _ in range(count)]
    await asyncio.sleep(0)
    return tasks


async def test_a_turn_that_is_given_back_goes_to_whoever_has_waited_longest() -> None:
    turns = Turns(1)
    assert turns.take()
    first, second = await waiting(turns, 2)
    turns.release()
    assert not turns.take(), "whoever comes now must not overtake those who wait"
    await first
    assert not second.done()
    turns.release()
    await second
    turns.release()
    assert turns.take()


async def test_one_who_has_given_up_is_passed_by() -> None:
    turns = Turns(1)
    assert turns.take()
    gone, stays = await waiting(turns, 2)
    gone.cancel()
    await asyncio.wait([gone])
    turns.release()
    await stays


async def test_a_turn_that_is_given_to_one_who_is_cancelled_in_the_same_moment_is_not_lost() -> None:
    turns = Turns(1)
    assert turns.take()
    (gone,) = await waiting(turns, 1)
    turns.release()
    gone.cancel()
    await asyncio.wait([gone])
    assert gone.cancelled()
    assert turns.take()
