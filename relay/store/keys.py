"""Every key relay has in Redis, with its type, its TTL and what it says: the page an operator reads.

`{T}` is the token in a Redis Cluster hash tag: all keys of one token are in one slot, so one script may touch
them together.  NAME is percent-encoded (see `names.encode_name`), ID the transfer's, NODE the node's.
Every key has a TTL, set in the script that creates it.
"""

from dataclasses import dataclass
from typing import NamedTuple


class KeySpec(NamedTuple):
    """One row of the README's table."""

    pattern: str
    type: str
    ttl: str
    says: str


KEYS = (
    KeySpec(
        "relay:token:{T}",
        "hash",
        "the token's remaining life",
        "`created` (Unix seconds), `uses`, `bytes` delivered by the transfers that have ended, and one field for each "
        "name at work: `transfer:NAME` the id of its live transfer, `wanted:NAME` the nodes where a download waits for "
        "it. Deleting the key revokes the token",
    ),
    KeySpec(
        "relay:revoked:{T}:ID",
        "hash",
        "30 s",
        "what a token was that a `DELETE` has revoked: if the answer was lost it asks again, for the transfers that it "
        "has to end",
    ),
    KeySpec(
        "relay:transfer:{T}:NAME",
        "hash",
        "the upload's wait and a minute; 20 s, renewed, while it streams",
        "the claim on the name and the state of its one live transfer: `id`, `state`, `uploader` and `downloader` "
        "(nodes), `joiner` (the download's id), `length` and `type` as the uploader gave them, `created`, `joined` "
        "(Unix seconds), `vouched` (milliseconds) when its waiting client was last found alive, `unread` where the "
        "uploader's side has gone while it was finishing",
    ),
    KeySpec(
        "relay:chunks:{T}:NAME:ID",
        "stream",
        "20 s, renewed",
        "the bytes in flight. An entry's ID is `END-0`, END being the byte offset just after the chunk; field `d` "
        "the bytes. Last entry: `TOTAL-1` with `end` = `complete`, or the outcome",
    ),
    KeySpec(
        "relay:acks:{T}:NAME:ID",
        "stream",
        "20 s, renewed",
        "the downloader's progress, one entry long: `0-1` joined, then `OFFSET-0`; at the end one more with `end` = "
        "the outcome and `to` = the bytes delivered",
    ),
    KeySpec(
        "relay:node:NODE",
        "hash",
        "three heartbeats",
        "`host`, `version`, `started` (Unix seconds), `waiting` (uploads), `streaming` (uploads and downloads; "
        "`uploading` of them are uploads), `rate_in` and `rate_out` (bytes a second), and a count for each outcome",
    ),
    KeySpec(
        "relay:uploads:NODE",
        "hash",
        "three heartbeats",
        "up to 100 transfers whose uploads NODE holds, streams first, then who waits longest: id → JSON with `token`, "
        "`name`, `state`, `delivered` (bytes), `rate` (bytes a second), `seconds` in that state …, as of the last "
        "heartbeat. For the status page: nothing hangs on it",
    ),
    KeySpec(
        "relay:tokens",
        "sorted set",
        "an hour",
        "token → when it expires (Unix seconds), give or take a heartbeat. For the status page: what counts is the "
        "TTL of the token's own key",
    ),
    KeySpec(
        "relay:rate:{LIMITER/WHAT/ADDRESS/…}",
        "string",
        "two of the rate's windows",
        "how often an address (of IPv6 its /64) has done something lately: `WHAT` is `tokens` or `failures`. `/-1` at "
        "the end: in the window before",
    ),
    KeySpec("relay:nodes", "sorted set", "an hour", "node → last heartbeat (Unix seconds of Redis's clock)"),
    KeySpec(
        "relay:inbox:NODE",
        "stream",
        "a minute",
        "short wake-ups for the clients that NODE holds: `about` a transfer id (behind its token and name, where NODE "
        "has to end it if it does not have that upload), or a transfer key that a download waits for. They carry no "
        "state, so a lost one costs time and nothing else",
    ),
)


@dataclass(frozen=True, slots=True)
class TransferKeys:
    """The keys of one transfer of one name."""

    token: str
    transfer: str
    chunks: str
    acks: str

    def all(self) -> list[str]:
        return [self.token, self.transfer, self.chunks, self.acks]


class Keys:
    """Builds every key.  `prefix` stands before the first colon, so that clusters can share one Redis."""

    def __init__(self, prefix: str = "relay") -> None:
        self.prefix = prefix

    def token(self, token: str) -> str:
        return f"{self.prefix}:token:{{{token}}}"

    def revoked(self, token: str, revocation: str) -> str:
        return f"{self.prefix}:revoked:{{{token}}}:{revocation}"

    def transfer(self, token: str, name: str) -> str:
        return f"{self.prefix}:transfer:{{{token}}}:{name}"

    def of(self, token: str, name: str, transfer_id: str) -> TransferKeys:
        return TransferKeys(
            token=self.token(token),
            transfer=self.transfer(token, name),
            chunks=f"{self.prefix}:chunks:{{{token}}}:{name}:{transfer_id}",
            acks=f"{self.prefix}:acks:{{{token}}}:{name}:{transfer_id}",
        )

    def node(self, node: str) -> str:
        return f"{self.prefix}:node:{node}"

    @property
    def rate(self) -> str:
        return f"{self.prefix}:rate"

    @property
    def nodes(self) -> str:
        return f"{self.prefix}:nodes"

    def uploads(self, node: str) -> str:
        return f"{self.prefix}:uploads:{node}"

    @property
    def tokens(self) -> str:
        return f"{self.prefix}:tokens"

    def inbox(self, node: str) -> str:
        return f"{self.prefix}:inbox:{node}"


def table() -> str:
    """`KEYS` as the Markdown table of the README."""
    rows = [f"| `{key.pattern}` | {key.type} | {key.ttl} | {key.says} |" for key in KEYS]
    return "\n".join(["| key | type | TTL | what it says |", "|---|---|---|---|", *rows])
