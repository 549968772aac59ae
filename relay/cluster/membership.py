"""TODO."""

from collections.abc import Mapping


class Roll:
    """Which nodes are alive, by the rolls called so far.  Pure: the clock (monotonic seconds) is the caller's.

    A node is alive until `death` seconds after its last sign of life, even if a later roll does not have it:
    Redis may have been restarted empty, and not have heard of it again yet.
    """

    def __init__(self, me: str, *, death: float, heartbeat: float) -> None:
        self.alive = {me}
        self._me = me
        self._death = death
        self._heartbeat = heartbeat
        self._seen: dict[str, float] = {}
        self._last: float | None = None

    def call(self, ages: Mapping[str, float], now: float) -> set[str]:
        """Takes the seconds since each node's last sign of life.  Answers the nodes that have died since the
        roll before."""
        if not self.is_steady(now):  # perhaps Redis was away for all: nobody is dead for not having reached it
            self._seen = dict.fromkeys(self._seen, now)
            ages = dict.fromkeys(ages, 0.0)
        for node, age in ages.items():
            self._seen[node] = max(now - age, self._seen.get(node, now - age))
        self._last = now
        self._seen = {node: seen for node, seen in self._seen.items() if now - seen <= self._death}
        before, self.alive = self.alive, {*self._seen, self._me}
        return before - self.alive

    def is_steady(self, now: float) -> bool:
        """Whether we got through to Redis lately, so that another's silence is its own."""
        return self._last is not None and now - self._last <= 2 * self._heartbeat
