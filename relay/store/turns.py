"""Turns: so many commands are under way at a time, and the others wait in the order in which they came.

This is `asyncio.Semaphore`, but a turn that is free, as nearly all are, costs two calls instead of nine.
"""

import asyncio
from collections import deque


class Turns:
    """`most` turns. Whoever has got one by `take` or `wait` gives it back by `release`."""

    def __init__(self, most: int) -> None:
        self._free = most
        #: While somebody waits, no turn is free. Those who have given up stay here until a turn passes them by.
        self._waiting: deque[asyncio.Future[None]] = deque()

    def take(self) -> bool:
        """Take a turn if one is free. Return whether one was."""
        if self._free:
            self._free -= 1
            return True
        return False

    async def wait(self) -> None:
        """Take a turn as soon as one is free."""
        if self.take():
            return
        given: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(given)
        try:
            await given
        except asyncio.CancelledError:
            if not given.cancelled():  # the turn was given in the moment in which its taker was cancelled
                self.release()
            raise

    def release(self) -> None:
        """Give a turn back: to whoever has waited longest, if somebody waits."""
        while self._waiting:
            given = self._waiting.popleft()
            if not given.done():
                given.set_result(None)
                return
        self._free += 1
