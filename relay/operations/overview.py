"""What an operator sees of the cluster: what the nodes report of themselves, and the sum of it.  Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

from relay.cluster.progress import Progress, by_urgency
from relay.states import Outcome

#: Maximum transfers on the status page.
MAX_ROWS = 200


@dataclass(frozen=True, slots=True)
class NodeReport:
    """One node, by its last heartbeat.  `rate_in` and `rate_out`: bytes a second from uploaders, to downloaders."""

    node: str
    alive: bool
    host: str = ""
    version: str = ""
    started: int = 0
    waiting: int = 0
    streaming: int = 0
    uploading: int = 0
    rate_in: float = 0.0
    rate_out: float = 0.0
    ended: int = 0
    complete: int = 0

    @classmethod
    def load(cls, node: str, fields: Mapping[str, str]) -> Self:
        """From its hash; that of a node which does not beat is empty."""
        if not fields:
            return cls(node, alive=False)
        return cls(
            node,
            alive=True,
            host=fields.get("host", ""),
            version=fields.get("version", ""),
            started=int(fields.get("started", 0)),
            waiting=int(fields.get("waiting", 0)),
            streaming=int(fields.get("streaming", 0)),
            uploading=int(fields.get("uploading", 0)),
            rate_in=float(fields.get("rate_in", 0)),
            rate_out=float(fields.get("rate_out", 0)),
            ended=sum(int(fields.get(outcome, 0)) for outcome in Outcome),
            complete=int(fields.get(Outcome.COMPLETE, 0)),
        )


class TokenLife(NamedTuple):
    """A token, the seconds it has left, and how often it was used."""

    token: str
    seconds: float
    uses: int


@dataclass(frozen=True, slots=True)
class Overview:
    """The cluster.  The lists may be shorter than the counts: the most telling come first."""

    nodes: Sequence[NodeReport]
    transfers: Sequence[Progress]
    lives: Sequence[TokenLife]
    streaming: int
    waiting: int
    tokens: int

    @classmethod
    def of(
        cls, nodes: Iterable[NodeReport], transfers: Iterable[Progress], lives: Iterable[TokenLife], tokens: int
    ) -> Self:
        """Sums up, and sorts."""
        nodes = sorted(nodes, key=lambda node: node.node)
        return cls(
            nodes=nodes,
            transfers=by_urgency(transfers),
            lives=sorted(lives, key=lambda life: life.seconds),
            streaming=sum(node.uploading for node in nodes),
            waiting=sum(node.waiting for node in nodes),
            tokens=tokens,
        )

    @property
    def shown(self) -> Sequence[Progress]:
        """The transfers that the status page has room for."""
        return self.transfers[:MAX_ROWS]

    @property
    def alive(self) -> int:
        """How many nodes are alive."""
        return sum(node.alive for node in self.nodes)

    @property
    def rate(self) -> float:
        """Bytes a second to all downloaders."""
        return sum(node.rate_out for node in self.nodes)
