"""Every key that relay has in Redis, with its type, its TTL and its contents. The README shows `KEYS` as a table.

`{T}` is the token's id, in the braces of a Redis Cluster hash tag: all keys of one token are in one slot, so that one
script may use them together. NAME is percent-encoded (see `names.encode_name`), ID is the transfer's id, NODE the
node's id. Every key has a TTL, set by the script that creates it.
"""

from collections.abc import Sequence
from typing import NamedTuple


class KeySpec(NamedTuple):
    """One row of the table."""

    pattern: str
    type: str
    ttl: str
    says: str


KEYS = (
    KeySpec(
        "relay:token:{T}",
        "hash",
        "the token's remaining life",
        "`digest` of its secret, `created` (Unix seconds), `uses`, `bytes` delivered by the transfers that have ended, "
        "bytes `reserved` for those that have not (only if it has a limit), the name of the secret that it was made "
        "with (`owner`) and its own limits (`max_names`, `max_bytes`, `max_upload`, and when it `ends`; 0: none), and "
        "one field for each name at work: `transfer:NAME` the id of its live transfer, `wanted:NAME` the nodes where "
        "a download waits for it. Deleting the key revokes the token",
    ),
    KeySpec(
        "relay:revoked:{T}",
        "hash",
        "a minute",
        "the fields of a token that a `DELETE` has revoked, and the id of that revocation (`by`). They name the "
        "transfers that it has to end: if the reply was lost, it reads them again. Clients of a token that is gone "
        "without this key are not told that it was revoked",
    ),
    KeySpec(
        "relay:transfer:{T}:NAME",
        "hash",
        "the upload's wait and a minute; 20 s, renewed, while it streams",
        "the claim on the name, and the state of its one live transfer: `id`, `state`, `uploader` and `downloader` "
        "(nodes), `hears` (the uploader's node, if it understands `joined` in its inbox), `joiner` (the download's "
        "id), `length` and `type` as the uploader gave them (`type` may end in its `filename*`), bytes `reserved` of "
        "its token (only if it has a limit), `max_bytes` and `max_upload` of its token, `created`, `joined` (Unix "
        "seconds), `vouched` and `taken` (Unix milliseconds) when its uploader and its downloader were last found "
        "alive, `unread` if the uploader's side has left while the transfer was finishing; of a transfer that goes on"
        " after a break, `rejoins`, the number of its `leg`, `legs` joined, `position` (the byte offset of its "
        "start), `sender` (the uploader's latest request) and `upload` (the digest of its address); and `sha256` of "
        "the whole file, if the uploader gave it",
    ),
    KeySpec(
        "relay:chunks:{T}:NAME:ID[:LEG]",
        "stream",
        "20 s, renewed",
        "the bytes in flight. An entry's ID is `OFFSET-0`, OFFSET being the byte offset after the chunk; its field `d` "
        "has the bytes. The last entry is `TOTAL-1` with `end` = `complete` (and `state` = `finishing` if the same "
        "step has set that), or has another outcome as its `end`, or `broken`: then `leg` is the number of the leg "
        "that follows",
    ),
    KeySpec(
        "relay:acks:{T}:NAME:ID[:LEG]",
        "stream",
        "20 s, renewed",
        "the downloader's progress, in one entry: `0-1` once it has joined, then `OFFSET-0`. When the transfer ends, "
        "one more follows, with `end` = the outcome and `to` = the bytes delivered",
    ),
    KeySpec(
        "relay:result:{T}:NAME:ID",
        "hash",
        "5 min",
        "how a resumable upload ended, for an uploader that did not hear of it: `outcome`, `bytes` delivered, and "
        "`upload`, the digest of its address; and for its downloader the `sha256` of the file, if the uploader gave it",
    ),
    KeySpec(
        "relay:node:NODE",
        "hash",
        "three heartbeats",
        "`host`, `version`, `started` (Unix seconds), `waiting` (uploads), `streaming` (uploads and downloads; "
        "`uploading` of them are uploads), `interrupted` (transfers whose uploader is away), `draining` (1: it shuts "
        "down), `rate_in` and `rate_out` (bytes a second), `history` (the bytes that clients took in each 10 s of the "
        "last five minutes, the oldest first), and a count for each outcome",
    ),
    KeySpec(
        "relay:uploads:NODE",
        "hash",
        "three heartbeats",
        "up to 100 transfers whose uploads NODE holds, the streaming ones first, then those that have waited longest: "
        "id → JSON with `token` (its id), `name`, `state`, `delivered` (bytes), `rate` (bytes a second), `seconds` in "
        "that state …, as of the last heartbeat. Only the status page uses it",
    ),
    KeySpec(
        "relay:downloads:NODE",
        "hash",
        "three heartbeats",
        "up to 100 transfers whose downloads NODE holds, and whose uploads are on other nodes: id → `BYTES RATE`, how "
        "far the client is and its bytes a second, as its machine has acknowledged. Only the status page uses it",
    ),
    KeySpec(
        "relay:tokens",
        "sorted set",
        "an hour",
        "a token's id → when it expires (Unix seconds), give or take a heartbeat. Only the status page uses it: a "
        "token lives as long as its own key",
    ),
    KeySpec(
        "relay:rate:WHAT:ADDRESS",
        "hash",
        "two of the rate's windows",
        "how often an address (of IPv6, a /64 network) has done something lately; WHAT is `tokens` or `failures`, or "
        "`secrets`, whose ADDRESS is the name of a secret. It "
        "counts `count` in the window that began at `begun` (Unix milliseconds of Redis's clock), and `before` in the "
        "window before that",
    ),
    KeySpec("relay:nodes", "sorted set", "an hour", "node → last heartbeat (Unix seconds of Redis's clock)"),
    KeySpec(
        "relay:inbox:NODE",
        "stream",
        "a minute",
        "short wake-ups for the clients that NODE holds. `about` is a transfer's id; or its token, name and id, if "
        "NODE has to end it unless it has that upload; or `joined`, these three, and the leg, the first byte, the "
        "`joiner` and the node of a download that has joined it; or the transfer key that a download waits for; or "
        "`abandoned` and a transfer's token, name and id, if NODE has to end it, because the other side's node cannot; "
        "or `farewell` and a node that shuts down; or `contest-resumes` or `contest-begins` and the `joiner` of a "
        "download whose place another one wants. Wake-ups carry nothing that is not elsewhere in Redis, so a lost one "
        "costs only time",
    ),
)


class TransferKeys(NamedTuple):
    """The keys of one transfer of one name."""

    token: str
    transfer: str
    chunks: str
    acks: str
    result: str

    def all(self) -> Sequence[str]:
        return self[:4]


class Keys:
    """Build every key. Clusters that share one Redis differ in `prefix`, which is the part before the first colon."""

    def __init__(self, prefix: str = "relay") -> None:
        self.prefix = prefix

    def token(self, token: str) -> str:
        return f"{self.prefix}:token:{{{token}}}"

    def revoked(self, token: str) -> str:
        return f"{self.prefix}:revoked:{{{token}}}"

    def transfer(self, token: str, name: str) -> str:
        return f"{self.prefix}:transfer:{{{token}}}:{name}"

    def of(self, token: str, name: str, transfer_id: str, leg: int = 0) -> TransferKeys:
        """Return the keys of a transfer, with the streams of one of its legs."""
        stream = f"{{{token}}}:{name}:{transfer_id}" + (f":{leg}" if leg else "")
        return TransferKeys(
            token=self.token(token),
            transfer=self.transfer(token, name),
            chunks=f"{self.prefix}:chunks:{stream}",
            acks=f"{self.prefix}:acks:{stream}",
            result=f"{self.prefix}:result:{{{token}}}:{name}:{transfer_id}",
        )

    def node(self, node: str) -> str:
        return f"{self.prefix}:node:{node}"

    def rate(self, what: str, address: str) -> str:
        return f"{self.prefix}:rate:{what}:{address}"

    @property
    def nodes(self) -> str:
        return f"{self.prefix}:nodes"

    def uploads(self, node: str) -> str:
        return f"{self.prefix}:uploads:{node}"

    def downloads(self, node: str) -> str:
        return f"{self.prefix}:downloads:{node}"

    @property
    def tokens(self) -> str:
        return f"{self.prefix}:tokens"

    def inbox(self, node: str) -> str:
        return f"{self.prefix}:inbox:{node}"


def table() -> str:
    """Return `KEYS` as a Markdown table."""
    rows = [f"| `{key.pattern}` | {key.type} | {key.ttl} | {key.says} |" for key in KEYS]
    return "\n".join(["| key | type | TTL | what it says |", "|---|---|---|---|", *rows])
