"""What the verbs take and return: transfers as Redis has them, and what is learned about them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from relay.states import Outcome, State
from relay.store.keys import Keys, TransferKeys

#: How the fields of a transfer's hash are read.
_READ: dict[str, Callable[[str], Any]] = {
    **dict.fromkeys(("id", "uploader", "downloader", "type", "joiner", "upload", "sha256", "hears"), str),
    **dict.fromkeys(("created", "joined", "reserved", "leg", "position", "legs", "vouched", "taken"), int),
    **dict.fromkeys(("max_bytes", "max_upload"), int),
    "state": State,
    "length": lambda text: int(text) if text else None,
    "rejoins": bool,
}


class Transfer(NamedTuple):
    """One live transfer: its identity, its keys, and the fields of its hash.

    `name` is percent-encoded. `length` is in bytes, None if the uploader did not declare it. `created` and `joined` are
    in Unix seconds, 0 if unknown. `uploader` and `downloader` are the ids of nodes.
    """

    token: str
    name: str
    id: str
    keys: TransferKeys
    state: State = State.WAITING
    uploader: str = ""
    downloader: str = ""
    length: int | None = None
    type: str = ""
    created: int = 0
    joined: int = 0
    #: Bytes of the token that are reserved for it.
    reserved: int = 0
    #: The number of its leg, and the id of the download that has joined it; see `relay.states`.
    leg: int = 0
    joiner: str = ""
    #: The byte offset at which the leg began; between two legs, the one up to which the downloader has everything.
    position: int = 0
    #: The digest of the address at which the uploader may return; empty if it cannot.
    upload: str = ""
    #: The SHA-256 of the whole file as its uploader gave it, in hexadecimal; empty if it has not.
    sha256: str = ""
    #: How many downloads have joined it.
    legs: int = 0
    #: The uploader's node, if it understands a `Meeting`. After an upgrade or a return this may be another node.
    hears: str = ""
    #: When its node last vouched for its client, and when these fields were read: milliseconds of Redis's clock.
    vouched: int = 0
    read_at: int = 0
    #: The same for its downloader, when its node last vouched for that.
    taken: int = 0
    #: Whether it goes on when its downloader has left and comes back.
    rejoins: bool = False
    #: The limits of its token alone, in bytes: of all transfers together, and of one upload; 0 means none.
    max_bytes: int = 0
    max_upload: int = 0

    @property
    def inquiry(self) -> "Inquiry":
        """The inquiry whether its uploader is still there."""
        return Inquiry(self.token, self.name, self.id)

    @property
    def decider(self) -> str:
        """The node that ends the transfer if no client does. If this node is dead, any other node may end it."""
        return self.downloader if self.state is State.FINISHING else self.uploader

    @classmethod
    def load(cls, keys: Keys, token: str, name: str, fields: Mapping[str, str], *, read_at: int = 0) -> Self:
        """Return the transfer that a hash describes."""
        read = {field: _READ[field](text) for field, text in fields.items() if field in _READ}
        of_leg = keys.of(token, name, read["id"], read.get("leg", 0))
        return cls(token=token, name=name, keys=of_leg, read_at=read_at, **read)


class Inquiry(NamedTuple):
    """A wake-up for an upload, which also asks whether its client is still there. A node without it disowns it."""

    token: str
    name: str
    id: str

    def __str__(self) -> str:
        """The topic of the wake-up. Its parts are separated by spaces, which neither tokens nor names contain."""
        return " ".join(self)

    @classmethod
    def parse(cls, topic: str) -> Self | None:
        """Return the inquiry that a topic is, or None if it is a transfer's id or key."""
        parts = topic.split(" ")
        return cls(*parts) if len(parts) == len(cls._fields) else None


class Meeting(NamedTuple):
    """A wake-up for an upload that a download has joined. It says all that the upload would ask Redis then."""

    inquiry: Inquiry
    leg: int
    #: The byte offset from which on the download `joiner` on `node` wants the file.
    start: int
    joiner: str
    node: str

    def __str__(self) -> str:
        """The topic of the wake-up. Nodes of earlier versions would ignore it: see `Transfer.hears`."""
        return f"joined {self.inquiry} {self.leg} {self.start} {self.joiner} {self.node}"

    @classmethod
    def parse(cls, topic: str) -> Self | None:
        """Return the meeting that a topic is, or None if it is another topic."""
        match topic.split(" "):
            case ["joined", token, name, id_, leg, start, joiner, node] if leg.isdecimal() and start.isdecimal():
                return cls(Inquiry(token, name, id_), int(leg), int(start), joiner, node)
        return None


class Ended(NamedTuple):
    """How a transfer ended whose other side is on the same node, and the bytes delivered."""

    outcome: Outcome
    delivered: int


class Abandoned(NamedTuple):
    """A wake-up by which a side that has lost Redis asks the other side's node to end the transfer.

    In a Redis Cluster, one node may be cut off from the master that has the transfer, and the other not.
    """

    token: str
    name: str
    id: str

    def __str__(self) -> str:
        """The topic of the wake-up. Nodes of earlier versions ignore it."""
        return " ".join(("abandoned", *self))

    @classmethod
    def parse(cls, topic: str) -> Self | None:
        """Return what a topic says to be abandoned, or None if it is another topic."""
        word, *parts = topic.split(" ")
        return cls(*parts) if word == "abandoned" and len(parts) == len(cls._fields) else None


class Claimed(NamedTuple):
    """What a claim learns: the nodes on which a download waits for the name, the bytes reserved for the upload, and the
    limits of its token alone (see `Transfer`).

    Bytes are reserved only for a declared length, and only if the token may have a limited number.
    """

    wanted: list[str]
    reserved: int = 0
    max_bytes: int = 0
    max_upload: int = 0


class Grant(NamedTuple):
    """What a new token may do: the name of the secret that it was made with, and the limits that go with that secret.

    `life` is in seconds, `bytes` those of all transfers together, `upload` those of the largest one. 0 means no limit
    but the cluster's.
    """

    owner: str = ""
    life: int = 0
    names: int = 0
    bytes: int = 0
    upload: int = 0


#: The grant of a token that no named secret limits.
UNLIMITED = Grant()


def smaller(one: int, other: int) -> int:
    """Return the smaller of two limits. 0 means no limit."""
    return min(one, other) if one and other else max(one, other)


class Contest(NamedTuple):
    """A wake-up for a download whose place another one wants. If that `resumes`, it may be of the same client."""

    joiner: str
    resumes: bool

    def __str__(self) -> str:
        """The topic of the wake-up."""
        return f"contest-{'resumes' if self.resumes else 'begins'} {self.joiner}"

    @classmethod
    def parse(cls, topic: str) -> Self | None:
        """Return the contest that a topic is, or None if it is another topic."""
        word, _, joiner = topic.partition(" ")
        return cls(joiner, word == "contest-resumes") if word in ("contest-resumes", "contest-begins") else None


class Farewell(NamedTuple):
    """A wake-up by which a node that shuts down takes its leave, so that the other nodes do not report it as lost."""

    node: str

    def __str__(self) -> str:
        """The topic of the wake-up."""
        return f"farewell {self.node}"

    @classmethod
    def parse(cls, topic: str) -> Self | None:
        """Return the farewell that a topic is, or None if it is another topic."""
        word, _, node = topic.partition(" ")
        return cls(node) if word == "farewell" and " " not in node else None


@dataclass(frozen=True, slots=True)
class Touched:
    """How a transfer stands: its state, its downloader's node, and the bytes that it has acknowledged.

    If `outcome` is BROKEN, the caller's leg has ended, and `leg` has begun. If it is another and the state is FREE, the
    transfer has ended. If it is another and the state is not FREE, the transfer lives, and the caller has to end it
    with that outcome.
    """

    outcome: Outcome | None
    state: State = State.FREE
    downloader: str = ""
    position: int = 0
    #: The byte offset at which the leg began.
    start: int = 0
    uploader: str = ""
    joiner: str = ""
    leg: int = 0


class Broken(NamedTuple):
    """What the caller that ended a leg learns: the transfer in its next leg, and the node of the side that remains."""

    transfer: Transfer
    other: str


class Result(NamedTuple):
    """How a resumable upload ended: the outcome, the bytes delivered, the digest of its address, and the SHA-256 of the
    file if its uploader gave that."""

    outcome: Outcome
    delivered: int
    upload: str
    sha256: str = ""


class Returned(NamedTuple):
    """What an uploader that returns learns: the transfer in its next leg, and the nodes of its downloader and of the
    uploader's request before."""

    transfer: Transfer
    former: str


@dataclass(frozen=True, slots=True)
class Ender:
    """Who ends a transfer, and what it knows."""

    #: The id of the download that ends its own transfer; empty for all others.
    joiner: str = ""
    #: The id of the uploader's request that ends it; empty for all others.
    sender: str = ""
    #: The bytes handed to the downloader, if that is known; otherwise the last acknowledgement counts.
    position: int = 0
    #: Which of the streams `chunks` and `acks` only the ender reads, and reads no more: they are deleted.
    unneeded: Sequence[str] = ()


#: Somebody who knows nothing of the transfer's bytes.
ANYBODY = Ender()


@dataclass(frozen=True, slots=True)
class Final:
    """What the one caller that ended a transfer learns: the transfer as it was, and the bytes delivered.

    `seconds` is the time since the downloader joined, or since the upload began if none did.
    """

    transfer: Transfer
    delivered: int
    seconds: int


#: How the fields of a token begin that name a live transfer, and the nodes on which downloads wait for a name.
_TRANSFER_FIELD, _WANTED_FIELD = "transfer:", "wanted:"


def transfers_in(token_fields: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return the names and ids of the live transfers that a token's fields list."""
    return [
        (field.removeprefix(_TRANSFER_FIELD), value)
        for field, value in token_fields.items()
        if field.startswith(_TRANSFER_FIELD)
    ]


def wanted_in(token_fields: Mapping[str, str]) -> list[tuple[str, list[str]]]:
    """Return the names that downloads wait for, each with the nodes on which they wait."""
    return [
        (field.removeprefix(_WANTED_FIELD), value.split())
        for field, value in token_fields.items()
        if field.startswith(_WANTED_FIELD)
    ]
