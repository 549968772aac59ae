"""Redis's clock, as far as this node knows it, and deadlines by it. Pure: the caller passes its own time in.

Redis may carry out a command long after its caller has given up: Redis stood still, or the connection was stuck. A
claim or a join that nobody waits for would then hold a name. So such commands carry the time at which their caller
gives up, and Redis refuses them afterwards.
"""


class Clock:
    """The clock of each Redis server, relative to this node's clock. Times of this node are in seconds."""

    def __init__(self) -> None:
        self._differences: dict[str, float] = {}

    def learn(self, server: str, redis_ms: int, *, now: float) -> None:
        """Record that a reply from `server`, received at `now`, contained Redis's time in Unix milliseconds."""
        self._differences[server] = redis_ms - now * 1000

    def deadline(self, server: str, at: float) -> int:
        """Return the deadline `at` by Redis's clock, in Unix milliseconds.

        It is never later than `at`; it is earlier by the time that the last reply took to arrive. While the clock is
        unknown it is 0: then Redis refuses the command, and says what time it is.
        """
        difference = self._differences.get(server)
        return 0 if difference is None else int(at * 1000 + difference)
