"""Whether the sender is away, while a receiver gets nothing: its connection to the relay stays open and silent then.

So the relay is asked, at first soon, then every few seconds, as long as nothing comes.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator

from relay.client.failures import Failure
from relay.client.http import Answer, Unreachable

#: Seconds without a byte after which the relay is asked for the first time, and the most between two questions.
_FIRST, _LONGEST = 1.0, 8.0


class Absence:
    """Looks after one download. `reached` returns how far that is, and `ask` makes a HEAD for its upload."""

    def __init__(self, reached: Callable[[], int], ask: Callable[[], Answer], say: Callable[[str], None]) -> None:
        self._reached = reached
        self._ask = ask
        self._say = say
        self._ended = threading.Event()

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Say that the sender is away, once each time, until the work within ends."""
        threading.Thread(target=self._run, daemon=True).start()
        try:
            yield
        finally:
            self._ended.set()  # nobody waits for the answer to its last question

    def _run(self) -> None:
        pause, last, is_said = _FIRST, -1, False
        while not self._ended.wait(pause):
            if (reached := self._reached()) != last:
                pause, last, is_said = _FIRST, reached, False
                continue
            pause = min(2 * pause, _LONGEST)
            is_away = self._is_away()
            if is_away and not is_said and not self._ended.is_set():
                self._say("waiting for the sender to come back …")
            is_said = is_away

    def _is_away(self) -> bool:
        with contextlib.suppress(Unreachable, Failure):
            return self._ask().headers.get("relay-state") == "interrupted"
        return False
