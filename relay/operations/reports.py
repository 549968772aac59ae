"""What this node reports of itself with every heartbeat, and what it shows of all nodes on the status page.

No client depends on a report: if one fails, the next one makes up for it.
"""

import asyncio
import logging
import time
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from itertools import chain, islice

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from relay.cluster.node import Node
from relay.cluster.progress import Progress, Taken
from relay.errors import StoreUnavailable
from relay.operations.census import Census
from relay.operations.overview import NodeReport, Overview
from relay.settings import Settings
from relay.states import Outcome, State
from relay.store.store import Store
from relay.tasks import beside

log = logging.getLogger("relay.reports")

#: Maximum transfers in one node's report, however many the node holds.
_MAX_TRANSFERS = 100
#: Seconds for which what was read from Redis is shown again.
_FRESH = 1.0


class NodeCollector(Collector):
    """The counters and gauges that this node keeps anyway, read when Prometheus asks for them."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def collect(self) -> Iterator[Metric]:
        node = self._node
        transfers = CounterMetricFamily(
            "relay_transfers", "Transfers that ended, by outcome; each is counted by one node", labels=["outcome"]
        )
        for outcome in Outcome.of_transfers():
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
        yield GaugeMetricFamily(
            "relay_uploads_interrupted",
            "Uploads whose uploader is away, and may return",
            value=len(node.load.uploads[State.INTERRUPTED]),
        )
        for name, meaning, counts in (
            ("relay_interruptions", "How often a side has left a transfer that waits for it", node.load.interruptions),
            ("relay_resumptions", "How often a side has come back to a transfer", node.load.resumptions),
        ):
            family = CounterMetricFamily(name, meaning, labels=["side"])
            for side in ("uploader", "downloader"):
                family.add_metric([side], counts[side])
            yield family
        yield CounterMetricFamily("relay_rewound_bytes", "Bytes that were sent once more", value=node.load.rewound)
        yield CounterMetricFamily(
            "relay_skipped_bytes", "Bytes received that the downloader had already", value=node.load.skipped
        )
        yield GaugeMetricFamily("relay_downloads_streaming", "Downloads that stream", value=len(node.load.downloads))
        yield GaugeMetricFamily("relay_nodes_alive", "Nodes alive, as this node sees it", value=len(node.alive))


class Reports:
    """Write this node's report with every heartbeat, within `running`, and read the reports of all nodes."""

    def __init__(self, settings: Settings, store: Store, node: Node) -> None:
        self._settings = settings
        self._census = Census(store)
        self._node = node
        #: Tokens that should have expired by now, to be checked with the next report.
        self._checked: list[str] = []
        #: The cluster as Redis had it at `_read_at`, in monotonic seconds.
        self._read: Overview | None = None
        self._read_at = 0.0
        self._reading = asyncio.Lock()
        #: Whether Redis has a report of downloads.
        self._has_told = False

    async def overview(self) -> Overview:
        """Return the cluster: this node as it is now, and the others as they last reported, up to a second ago.

        Raise StoreUnavailable.
        """
        async with self._reading:
            if self._read is None or time.monotonic() - self._read_at > _FRESH:
                asked_at = time.monotonic()
                self._read, self._read_at = await self._census.overview(), asked_at
            read, read_at = self._read, self._read_at
        # From here on nothing is awaited, so that all that is said of this node is of one moment.
        now = time.monotonic()
        facts = {name: str(fact) for name, fact in self._node.load.facts().items()}
        return read.updated(NodeReport.load(self._node.id, facts), self._transfers(now), seconds=now - read_at)

    def _transfers(self, now: float) -> list[Progress]:
        """Return the transfers whose uploads are here, at `now` in monotonic seconds, but not more than fit a page."""
        held = self._node.load.uploads
        uploads = chain(held[State.STREAMING], held[State.INTERRUPTED], held[State.WAITING])
        shown = [upload.progress(now) for upload in islice(uploads, _MAX_TRANSFERS)]
        wanted = {progress.id for progress in shown if progress.downloader == self._node.id}
        here = (download for download in self._node.load.downloads if download.transfer.id in wanted)
        taken = {download.transfer.id: download.taken(now) for download in here}
        return [progress.taken(taken.get(progress.id)) for progress in shown]

    def _taken(self, now: float) -> dict[str, Taken]:
        """Return what the clients have taken of the transfers whose downloads alone are here, but not of too many."""
        downloads = (each for each in self._node.load.downloads if each.peer != self._node.id)
        return {each.transfer.id: each.taken(now) for each in islice(downloads, _MAX_TRANSFERS)}

    async def report(self) -> None:
        """Report the transfers here, and the tokens whose life has changed here. Raise StoreUnavailable."""
        now, node = time.monotonic(), self._node.id
        await self._census.report(node=node, transfers=self._transfers(now))
        if (taken := self._taken(now)) or self._has_told:
            await self._census.report_taken(node=node, taken=taken)
        self._has_told = bool(taken)
        used = self._node.load.used_tokens.copy()
        lives = await self._census.lives(tokens=[*used, *self._checked])
        self._checked = await self._census.enrol(lives=lives)
        self._node.load.used_tokens -= used

    def running(self) -> AbstractAsyncContextManager[None]:
        """Report with every heartbeat."""
        return beside(self._report_for_ever())

    async def _report_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._settings.heartbeat)
            try:
                await self.report()
            except StoreUnavailable:
                pass  # the heartbeat's loop logs it
            except Exception:
                log.exception("a bug: the report for the status page failed")
