"""TODO."""

import asyncio


class Listener:
    """Somebody who waits for wake-ups.  `set` is also what a connection calls when its client leaves."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def set(self) -> None:
        self._event.set()

    async def wait(self, timeout: float) -> bool:
        """Waits for a wake-up for up to `timeout` seconds; False if none came.  Takes the wake-up."""
        try:
            async with asyncio.timeout(max(0.0, timeout)):
                await self._event.wait()
        except TimeoutError:
            return False
        self._event.clear()
        return True
