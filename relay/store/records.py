"""A transfer, as Redis has it: what the verbs of `store` are about, and what they answer."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from relay.states import Outcome, State
from relay.store.keys import Keys, TransferKeys


@dataclass(frozen=True, slots=True)
class Transfer:
    """One live transfer: its identity, its keys, and what its hash says."""

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

    @property
    def question(self) -> str:
        """What wakes the upload's side, or has its node say that there is none."""
        return f"{self.token} {self.name} {self.id}"

    @property
    def decider(self) -> str:
        """The node that will end it, if nobody else does: where that is dead, somebody else has to."""
        return self.downloader if self.state is State.FINISHING else self.uploader

    @classmethod
    def load(cls, keys: Keys, token: str, name: str, fields: Mapping[str, str]) -> Self:
        """From its hash."""
        length = fields.get("length", "")
        return cls(
            token=token,
            name=name,
            id=fields["id"],
            keys=keys.of(token, name, fields["id"]),
            state=State(fields.get("state", State.WAITING)),
            uploader=fields.get("uploader", ""),
            downloader=fields.get("downloader", ""),
            length=int(length) if length else None,
            type=fields.get("type", ""),
            created=int(fields.get("created", 0)),
            joined=int(fields.get("joined", 0)),
        )


@dataclass(frozen=True, slots=True)
class Holder:
    """What a refused claim learns: who holds the name, when its client was last found alive, and what time it
    is, both in milliseconds of Redis's clock."""

    transfer: Transfer
    vouched: int
    now: int


@dataclass(frozen=True, slots=True)
class Touched:
    """How a transfer ended, FREE being its state then, or has to end; its downloader's node, and how many bytes
    that has acknowledged."""

    outcome: Outcome | None
    state: State = State.FREE
    downloader: str = ""
    position: int = 0


@dataclass(frozen=True, slots=True)
class Final:
    """What the one caller that ended a transfer learns: the transfer as it was, the bytes that had been
    acknowledged, and the seconds since the downloader joined (or the upload began, where none did)."""

    transfer: Transfer
    delivered: int
    seconds: int


def transfers_in(token_fields: Mapping[str, str]) -> list[tuple[str, str]]:
    """The names and ids of the live transfers that a token's fields list."""
    return [(field[9:], value) for field, value in token_fields.items() if field.startswith("transfer:")]
