"""Watches whether Redis may throw keys away. If it does, transfers break and tokens vanish, and nobody sees why."""

import asyncio
import logging
from contextlib import AbstractAsyncContextManager

from relay.metrics import Metrics
from relay.store.store import Store
from relay.tasks import beside

log = logging.getLogger("relay.store")

#: Seconds between two looks: the policy may be changed while Redis runs, and a failover may bring another one.
_LOOK = 60.0
ADVICE = "when memory is full, tokens and transfers vanish: set maxmemory-policy noeviction"


class Eviction:
    """Warn in the log and in the metrics, within `running`."""

    def __init__(self, store: Store, metrics: Metrics) -> None:
        self._store = store
        self._metrics = metrics
        self._warned = ""

    def running(self) -> AbstractAsyncContextManager[None]:
        """Look at once, and then every minute."""
        return beside(self._look_for_ever())

    async def _look_for_ever(self) -> None:
        while True:
            try:
                await self.look()
            except Exception:
                log.exception("a bug: the eviction policy was not read")
            await asyncio.sleep(_LOOK)

    async def look(self) -> None:
        """Read the policy. Log a warning when it begins to be one that evicts."""
        facts = await self._store.servers.facts()
        if facts is None:  # nothing is known, so what was known stays
            return
        policy = next((server.policy for server in facts if server.evicts), "")
        self._metrics.redis_evicts.set(bool(policy))
        if policy and policy != self._warned:
            log.warning("Redis has maxmemory-policy %s: %s", policy, ADVICE)
        self._warned = policy
