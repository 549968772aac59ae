"""What this node tells operators of itself, every heartbeat, and what it reads of all: the status page's side of Redis.

Nothing hangs on it: a report that fails is made up for by the next one.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Iterator
from itertools import chain, islice

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from relay.cluster.node import Node
from relay.errors import StoreUnavailable
from relay.operations.census import Census
from relay.operations.overview import Overview
from relay.settings import Settings
from relay.states import Outcome, State
from relay.store.store import Store
from relay.tasks import stop

log = logging.getLogger("relay.reports")

#: Transfers in one node's report: what fits on a page, whatever the node holds.
_TRANSFERS_MOST = 100
#: Seconds for which an overview is good.
_FRESH = 1.0


class NodeCollector(Collector):
    """What this node knows of itself, as Prometheus wants it, when it is asked for."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def collect(self) -> Iterator[Metric]:
        node = self._node
        transfers = CounterMetricFamily(
            "relay_transfers", "Transfers that ended, by outcome; each is counted by one node", labels=["outcome"]
        )
        for outcome in Outcome:
            transfers.add_metric([outcome], node.load.counts[outcome])
        yield transfers
        yield CounterMetricFamily("relay_received_bytes", "Bytes from uploaders", value=node.load.received)
        yield CounterMetricFamily("relay_delivered_bytes", "Bytes to downloaders", value=node.load.delivered)
        yield GaugeMetricFamily(
            "relay_uploads_waiting", "Uploads that wait for a downloader", value=len(node.load.uploads[State.WAITING])
        )
        yield GaugeMetricFamily(
            "relay_uploads_streaming", "Uploads that stream", value=len(node.load.uploads[State.STREAMING])
        )
        yield GaugeMetricFamily("relay_downloads_streaming", "Downloads that stream", value=len(node.load.downloads))
        yield GaugeMetricFamily("relay_nodes_alive", "Nodes that live, as this one sees it", value=len(node.alive))


class Reports:
    """Writes this node's report and reads those of all.  Use `running` around the server's life."""

    def __init__(self, settings: Settings, store: Store, node: Node) -> None:
        self._settings = settings
        self._census = Census(store)
        self._node = node
        self._over: list[str] = []
        self._overview: Overview | None = None
        self._read = 0.0
        self._reading = asyncio.Lock()

    async def overview(self) -> Overview:
        """The cluster, as it was at most a second ago.  Raises StoreUnavailable."""
        async with self._reading:
            if self._overview is None or time.monotonic() - self._read > _FRESH:
                self._overview = await self._census.overview()
                self._read = time.monotonic()
            return self._overview

    async def report(self) -> None:
        """Tells of the transfers here, and of the tokens whose life has changed here.  Raises StoreUnavailable."""
        now = time.monotonic()
        uploads = chain(self._node.load.uploads[State.STREAMING], self._node.load.uploads[State.WAITING])
        transfers = [upload.progress(now) for upload in islice(uploads, _TRANSFERS_MOST)]
        await self._census.report(node=self._node.id, transfers=transfers)
        used = self._node.load.used_tokens.copy()
        lives = await self._census.lives(tokens=[*used, *self._over])
        self._over = await self._census.enrol(lives=lives)
        self._node.load.used_tokens -= used

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Reports with every heartbeat."""
        task = asyncio.create_task(self._report_for_ever())
        try:
            yield
        finally:
            await stop([task])

    async def _report_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._settings.heartbeat)
            try:
                await self.report()
            except StoreUnavailable:
                pass  # the heartbeat's loop says so in the log
            except Exception:
                log.exception("a bug: the report for the status page failed")
