"""What an operator sees of the cluster: what the nodes report of themselves, and the sum of it. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import NamedTuple, Self

from relay.cluster.progress import Progress, by_urgency
from relay.states import Outcome

#: Maximum transfers on the status page.
MAX_ROWS = 200


@dataclass(frozen=True, slots=True)
class NodeReport:
    """One node, as it was `age` seconds ago: when it sent its last heartbeat, or now for the node that is asked.

    `rate_in` and `rate_out` are bytes a second from uploaders and to downloaders.
    """

    node: str
    alive: bool
    age: float = 0.0
    host: str = ""
    version: str = ""
    started: int = 0
    waiting: int = 0
    interrupted: int = 0
    streaming: int = 0
    uploading: int = 0
    rate_in: float = 0.0
    rate_out: float = 0.0
    ended: int = 0
    complete: int = 0

    @classmethod
    def load(cls, node: str, fields: Mapping[str, str], *, age: float = 0.0) -> Self:
        """Return the report in a node's hash. The hash of a node that sends no heartbeats is empty."""
        if not fields:
            return cls(node, alive=False, age=age)
        return cls(
            node,
            alive=True,
            age=age,
            host=fields.get("host", ""),
            version=fields.get("version", ""),
            started=int(fields.get("started", 0)),
            waiting=int(fields.get("waiting", 0)),
            interrupted=int(fields.get("interrupted", 0)),
            streaming=int(fields.get("streaming", 0)),
            uploading=int(fields.get("uploading", 0)),
            rate_in=float(fields.get("rate_in", 0)),
            rate_out=float(fields.get("rate_out", 0)),
            ended=sum(int(fields.get(outcome, 0)) for outcome in Outcome.of_transfers()),
            complete=int(fields.get(Outcome.COMPLETE, 0)),
        )


class TokenLife(NamedTuple):
    """A token, the seconds that it has left, and how often it was used."""

    token: str
    seconds: float
    uses: int


@dataclass(frozen=True, slots=True)
class Overview:
    """The cluster. The lists may be shorter than the counts; they begin with what matters most."""

    nodes: Sequence[NodeReport]
    transfers: Sequence[Progress]
    lives: Sequence[TokenLife]
    streaming: int
    waiting: int
    interrupted: int
    tokens: int

    @classmethod
    def of(
        cls, nodes: Iterable[NodeReport], transfers: Iterable[Progress], lives: Iterable[TokenLife], tokens: int
    ) -> Self:
        """Return the overview with its lists sorted and its counts summed up."""
        nodes = sorted(nodes, key=lambda node: node.node)
        return cls(
            nodes=nodes,
            transfers=by_urgency(transfers),
            lives=sorted(lives, key=lambda life: life.seconds),
            streaming=sum(node.uploading for node in nodes),
            waiting=sum(node.waiting for node in nodes),
            interrupted=sum(node.interrupted for node in nodes),
            tokens=tokens,
        )

    def updated(self, own: NodeReport, transfers: Iterable[Progress], *, seconds: float) -> Self:
        """Return the overview `seconds` later, with what one node knows of itself instead of its last report.

        `transfers` are those whose uploads that node holds.
        """
        others = [replace(node, age=node.age + seconds) for node in self.nodes if node.node != own.node]
        theirs = (transfer for transfer in self.transfers if transfer.uploader != own.node)
        # No page shows more of them, and sorting all for every page would cost more than reading them once a second.
        return self.of([own, *others], [*transfers, *islice(theirs, MAX_ROWS)], self.lives, self.tokens)

    @property
    def shown(self) -> Sequence[Progress]:
        """Return the transfers that the status page has room for."""
        return self.transfers[:MAX_ROWS]

    @property
    def active(self) -> int:
        """Return how many transfers there are."""
        return self.streaming + self.waiting + self.interrupted

    @property
    def alive(self) -> int:
        """Return how many nodes are alive."""
        return sum(node.alive for node in self.nodes)

    @property
    def rate(self) -> float:
        """Return the bytes a second that all downloaders receive together."""
        return sum(node.rate_out for node in self.nodes)
