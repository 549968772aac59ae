"""Whether the upload that holds a name is still there.

Redis knows of an upload until its claim expires, but the node that holds its client may have died, or the client may
have left without its node noticing. So everybody who looks at a name asks here before relying on what Redis says: a
claim, a download, a HEAD, and the list of a token's transfers.
"""

import asyncio
from time import monotonic

from relay.states import Outcome, State
from relay.store.records import Transfer
from relay.transfer.context import Context

#: Seconds that the holder's node gets to vouch for its client: more than it needs to probe the client.
PATIENCE = 2.0
#: The same for a download. A client that is connected directly is probed in some milliseconds; behind a proxy a probe
#: takes longer than a download should wait.
BRIEF = 0.1
#: Seconds for which a download or a HEAD trusts an upload that has just begun, or that its node has just vouched for.
TRUST = 2.0
#: Seconds from an inquiry until the first look at what became of it, and the maximum between looks; each is twice the
#: one before.
_FIRST_LOOK, _LONGEST = 0.005, 0.05


async def confirm(
    context: Context, transfer: Transfer, *, trust: float = TRUST, patience: float = PATIENCE
) -> Transfer | None:
    """Return the transfer as it stands now, or None if it is over.

    An upload whose node is dead is ended. Any other upload that waits is inquired about, unless it was known to be
    there at most `trust` seconds ago: then its node vouches for its client, or ends the upload. If it does neither
    within `patience` seconds, the client is assumed to be there. With a `trust` of 0 an upload that streams is inquired
    about, too: somebody wants its name.
    """
    asked = transfer.read_at - round(trust * 1000)
    deadline, pause = monotonic() + patience, _FIRST_LOOK
    now: Transfer | None = transfer
    while now is not None and now.id == transfer.id:
        if not await context.node.is_alive(now.decider):
            await context.endings.end(now, Outcome.NODE_LOST)
            return None
        seen = max(now.vouched, now.created * 1000) if trust else now.vouched
        if seen >= asked or monotonic() > deadline or (trust and now.state is not State.WAITING):
            return now
        await context.node.inbox.send(now.uploader, str(now.inquiry))
        await asyncio.sleep(pause)
        pause = min(2 * pause, _LONGEST)
        now = await context.store.transfers.look(token=transfer.token, name=transfer.name, use=False)
    return None
