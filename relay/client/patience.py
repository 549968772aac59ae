"""How long to try again, and how long to pause before. Pure: times are passed in, in seconds."""

import random

#: Seconds before the first retry, and the most; each pause is twice the one before.
_FIRST, _LONGEST = 0.25, 8.0


class Patience:
    """Counts the attempts since something last moved. It ends `most` seconds after the first of them failed."""

    def __init__(self, most: float) -> None:
        self._most = most
        self._since: float | None = None
        #: How many attempts have failed since something last moved.
        self.attempts = 0

    def moved(self) -> None:
        """Note that the transfer goes on."""
        self.attempts, self._since = 0, None

    def failed(self, now: float) -> float | None:
        """Note that an attempt has failed. Return the seconds to pause before the next one; None to give up."""
        self._since = now if self._since is None else self._since
        self.attempts += 1
        left = self._since + self._most - now
        if left <= 0:
            return None
        pause = min(_LONGEST, _FIRST * 2.0 ** min(self.attempts - 1, 10))
        # Clients that one dead node has cut off must not all return at the same instant.
        return min(left, pause * random.uniform(0.5, 1.0))  # noqa: S311
