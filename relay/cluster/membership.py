"""Which nodes are alive, according to the heartbeats that Redis has seen. Pure: the caller passes the time in."""

from collections.abc import Mapping


class Membership:
    """The nodes that are alive. Times are in seconds of the caller's monotonic clock.

    A node is alive until `death` seconds after its last heartbeat, even if a later list does not contain it: Redis may
    have been restarted empty, and not have heard of the node again yet.
    """

    def __init__(self, me: str, *, death: float, heartbeat: float) -> None:
        self.alive = {me}
        self._me = me
        self._death = death
        self._heartbeat = heartbeat
        self._seen: dict[str, float] = {}
        self._updated: float | None = None
        #: The nodes that have taken their leave. An id is never used again.
        self._left: set[str] = set()

    def update(self, ages: Mapping[str, float], now: float) -> set[str]:
        """Take the seconds since each node's last heartbeat. Return the nodes that have died since the last update."""
        if not self.is_steady(now):  # perhaps no node reached Redis meanwhile: that is no sign that any is dead
            self._seen = dict.fromkeys(self._seen, now)
            ages = dict.fromkeys(ages, 0.0)
        for node, age in ages.items():
            if node in self._left:
                continue  # the list is older than its farewell
            self._seen[node] = max(now - age, self._seen.get(node, now - age))
        self._updated = now
        self._seen = {node: seen for node, seen in self._seen.items() if now - seen <= self._death}
        before, self.alive = self.alive, {*self._seen, self._me}
        return before - self.alive

    def last_seen(self, node: str) -> float:
        """Return when a node sent the last heartbeat that is known; 0 if none is."""
        return self._seen.get(node, 0.0)

    def remove(self, node: str) -> None:
        """Forget a node that has taken its leave: it is not alive any more, and it has not died."""
        self._left.add(node)
        self._seen.pop(node, None)
        self.alive = self.alive - {node}

    def is_steady(self, now: float) -> bool:
        """Return whether this node has reached Redis lately, so that another node's silence is its own."""
        return self._updated is not None and now - self._updated <= 2 * self._heartbeat
