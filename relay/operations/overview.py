"""What an operator sees of the cluster: what the nodes report of themselves, and the sum of it. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import NamedTuple, Self

from relay.cluster.progress import STEPS, Progress, Taken, by_urgency
from relay.states import Outcome
from relay.store.servers import ServerFacts

#: Maximum transfers on the status page.
MAX_ROWS = 200


@dataclass(frozen=True, slots=True)
class NodeReport:
    """One node, as it was `age` seconds ago: when it sent its last heartbeat, or now for the node that is asked.

    `rate_in` and `rate_out` are bytes a second from uploaders and to downloaders. `started` is in Unix seconds; 0 if it
    is unknown. `history` has the bytes that downloaders took in each 10 s of the last five minutes, the oldest first;
    None if the node is of a version that does not report them. `outcomes` counts the transfers that ended.
    """

    node: str
    alive: bool
    age: float = 0.0
    is_draining: bool = False
    host: str = ""
    version: str = ""
    started: int = 0
    waiting: int = 0
    interrupted: int = 0
    streaming: int = 0
    uploading: int = 0
    rate_in: float = 0.0
    rate_out: float = 0.0
    history: tuple[int, ...] | None = None
    outcomes: Mapping[str, int] = field(default_factory=dict)

    @property
    def ended(self) -> int:
        """Return how many transfers ended, each counted by one node."""
        return sum(self.outcomes.values())

    @property
    def complete(self) -> int:
        """Return how many of these were complete."""
        return self.outcomes.get(Outcome.COMPLETE, 0)

    @property
    def state(self) -> str:
        """Return the state in one word."""
        return "lost" if not self.alive else "draining" if self.is_draining else "alive"

    def uptime(self, now: float) -> float | None:
        """Return the seconds since it started, at `now` in Unix seconds; None if that is unknown.

        Its clock may be ahead of ours.
        """
        return max(0.0, now - self.started) if self.started else None

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
            is_draining=fields.get("draining", "0") != "0",
            waiting=int(fields.get("waiting", 0)),
            interrupted=int(fields.get("interrupted", 0)),
            streaming=int(fields.get("streaming", 0)),
            uploading=int(fields.get("uploading", 0)),
            rate_in=float(fields.get("rate_in", 0)),
            rate_out=float(fields.get("rate_out", 0)),
            history=tuple(map(int, fields["history"].split())) if "history" in fields else None,
            outcomes={outcome.value: int(fields.get(outcome, 0)) for outcome in Outcome.of_transfers()},
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
    #: What each server of Redis says of itself; None if they say nothing.
    servers: Sequence[ServerFacts] | None = None
    #: What the nodes of downloads say of transfers whose uploads are elsewhere, by the transfer's id.
    taken: Mapping[str, Taken] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        nodes: Iterable[NodeReport],
        transfers: Iterable[Progress],
        lives: Iterable[TokenLife],
        tokens: int,
        *,
        servers: Sequence[ServerFacts] | None = None,
        taken: Mapping[str, Taken] | None = None,
    ) -> Self:
        """Return the overview with its lists sorted and its counts summed up."""
        nodes = sorted(nodes, key=lambda node: node.node)
        return cls(
            nodes=nodes,
            transfers=by_urgency(transfer.taken((taken or {}).get(transfer.id)) for transfer in transfers),
            lives=sorted(lives, key=lambda life: life.seconds),
            streaming=sum(node.uploading for node in nodes),
            waiting=sum(node.waiting for node in nodes),
            interrupted=sum(node.interrupted for node in nodes),
            tokens=tokens,
            servers=servers,
            taken=taken or {},
        )

    def updated(self, own: NodeReport, transfers: Iterable[Progress], *, seconds: float) -> Self:
        """Return the overview `seconds` later, with what one node knows of itself instead of its last report.

        `transfers` are those whose uploads that node holds.
        """
        others = [replace(node, age=node.age + seconds) for node in self.nodes if node.node != own.node]
        theirs = (transfer for transfer in self.transfers if transfer.uploader != own.node)
        # No page shows more of them, and sorting all for every page would cost more than reading them once a second.
        shown = [*transfers, *islice(theirs, MAX_ROWS)]
        return self.of([own, *others], shown, self.lives, self.tokens, servers=self.servers, taken=self.taken)

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

    @property
    def history(self) -> Sequence[int]:
        """Return the bytes that all downloaders took in each 10 s of the last five minutes, the oldest first.

        What nodes took that are gone by now is not in it. Nodes begin their 10 s at different moments.
        """
        sums = [0] * STEPS
        for node in self.nodes:
            for step, taken in enumerate(reversed((node.history or ())[-STEPS:]), start=1):
                sums[-step] += taken
        return sums

    @property
    def silent(self) -> Sequence[str]:
        """Return the live nodes whose bytes are missing in `history`, because they are of an older version."""
        return [node.node for node in self.nodes if node.alive and node.history is None]

    @property
    def outcomes(self) -> Mapping[str, int]:
        """Return how many transfers ended with each outcome, as the nodes that are there have counted."""
        counts: Counter[str] = Counter()
        for node in self.nodes:
            counts.update(node.outcomes)
        return {outcome.value: counts[outcome.value] for outcome in Outcome.of_transfers()}
