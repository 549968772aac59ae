"""What all sides of transfers on one node share."""

from relay.buffers import Blocks
from relay.cluster.node import Node
from relay.metrics import Metrics
from relay.settings import Settings
from relay.states import State
from relay.store.records import Transfer
from relay.store.store import Store
from relay.store.streams import Stream
from relay.tasks import Background
from relay.transfer.drain import Gate
from relay.transfer.ending import Endings
from relay.transfer.local_stream import LocalStreams
from relay.transfer.rewind import RewindBudget
from relay.transfer.window import window_size


class Context:
    """The store, this node, and everything else that uploads and downloads work with."""

    def __init__(self, settings: Settings, store: Store, metrics: Metrics, node: Node) -> None:
        self.settings = settings
        self.store = store
        self.metrics = metrics
        self.node = node
        self.gate = Gate(on_advance=node.drain)
        self.background = Background()
        self.endings = Endings(store, node, self.background, resume_wait=settings.resume_wait)
        #: The memory that uploads are received into.
        self.blocks = Blocks(settings.chunk)
        self.rewind_budget = RewindBudget(settings.rewind, window=settings.window)
        self._local = LocalStreams()

    def window(self, peer: str) -> int:
        """Return the window, in bytes, of an upload to a downloader on the node `peer`, given how many stream now."""
        uploads = len(self.node.load.uploads[State.STREAMING])
        is_local, chunk = peer == self.node.id, self.settings.chunk
        return window_size(self.settings.window, chunk=chunk, uploads=uploads, is_local=is_local)

    def stream(self, transfer: Transfer, peer: str) -> Stream:
        """Return the stream of a transfer between a side on this node and one on the node `peer`."""
        return (
            self._local.get(transfer.id, transfer.leg)
            if peer == self.node.id
            else self.store.transfers.stream(transfer)
        )
