"""Redis's clock, as far as this node knows it, and deadlines by it. Pure: the caller passes its own time in.

Redis may carry out a command long after its caller has given up: Redis stood still, or the connection was stuck. A
claim or a join that nobody waits for would then hold a name. So such commands carry the time at which their caller
gives up, and Redis refuses them afterwards.
"""


class Clock:
    """The clock of each Redis server, relative to this node's clock. Times of this node are in seconds."""

    def __init__(self) -> None:
        self._offsets: dict[str, float] = {}

    def learn(self, server: str, redis_ms: int, *, now: float) -> None:
        """Record that a reply from `server`, received at `now`, contained Redis's time in Unix milliseconds."""
        self._offsets[server] = redis_ms - now * 1000

    def deadline(self, server: str, at: float) -> int:
        """Return the time of Redis's clock, in Unix milliseconds, that it shows at the latest when ours shows `at`.

        It is early by the time that the last reply was under way, and never late. While the clock is unknown it is 0:
        then Redis refuses the command, and says what time it is.
        """
        offset = self._offsets.get(server)
        return 0 if offset is None else int(at * 1000 + offset)
