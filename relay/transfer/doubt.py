"""Whether the upload that holds a name is still there.

Redis knows of an upload until its claim expires, but the node that holds its client may have died, or the client may
have left without its node noticing. So everybody who looks at a name asks here before relying on what Redis says: a
claim, a download, a HEAD, and the list of a token's transfers.
"""

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import TypeVar

from relay.errors import Error, Problem
from relay.states import Answer, State
from relay.store.records import Contest, Transfer, transfers_in, wanted_in
from relay.transfer.context import Context

T = TypeVar("T")
#: Seconds that the holder's node gets to vouch for its client: more than it needs to probe the client.
PATIENCE = 2.0
#: The same for a download. A client that is connected directly is probed in some milliseconds; behind a proxy a probe
#: takes longer than a download should wait.
BRIEF = 0.1
#: Seconds for which a download or a HEAD trusts an upload that has just begun, or that its node has just vouched for.
TRUST = 2.0
#: The errors of a token that has no room for another upload.
_FULL = (Error.CROWDED, Error.SPENT)
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
        if now.state is State.INTERRUPTED:
            return now
        if not await context.node.is_alive(now.decider):
            await context.endings.lose(now)
            now = await context.store.transfers.look(token=transfer.token, name=transfer.name, use=False)
            continue
        seen = max(now.vouched, now.created * 1000) if trust else now.vouched
        if seen >= asked or monotonic() > deadline or (trust and now.state is not State.WAITING):
            return now
        await context.node.inbox.send(now.uploader, str(now.inquiry))
        await asyncio.sleep(pause)
        pause = min(2 * pause, _LONGEST)
        now = await context.store.transfers.look(token=transfer.token, name=transfer.name, use=False)
    return None


async def is_taken(context: Context, transfer: Transfer, *, start: int) -> bool:
    """Return whether the download that has joined a transfer is still there, or has ended the transfer meanwhile.
    Otherwise its place is free now.

    Its client may have lost its connection without its node noticing, and this may be that client coming back, which
    wants the file from byte offset `start` on. So its node is asked: it vouches for its client, or breaks the download
    off. If it does neither, the download is broken off from here.
    """
    asked = transfer.read_at
    deadline, pause, contest = monotonic() + PATIENCE, _FIRST_LOOK, None
    while True:
        now = await context.store.transfers.look(token=transfer.token, name=transfer.name, use=False)
        if now is None or now.id != transfer.id:
            return True  # or the other download would wait for another upload, although it came too late for this one
        if not now.joiner or (contest is not None and now.joiner != contest.joiner):
            return False
        if not now.rejoins or now.taken >= asked:
            return True
        if monotonic() > deadline or not await context.node.is_alive(now.downloader):
            return await context.endings.leave(now, joiner=now.joiner) is Answer.KEPT
        if contest is None:
            contest = Contest(now.joiner, await _resumes(context, now, start))
        await context.node.inbox.send(now.downloader, str(contest))
        await asyncio.sleep(pause)
        pause = min(2 * pause, _LONGEST)


async def _resumes(context: Context, transfer: Transfer, start: int) -> bool:
    """Return whether a download from byte offset `start` on may be one that goes on, and can be served."""
    if start == 0 or transfer.upload:
        return start > 0
    most = context.settings.rewind + context.settings.window
    return await context.store.transfers.acknowledged(transfer) - start <= most


async def with_room(context: Context, token: str, verb: Callable[[], Awaitable[T]]) -> T:
    """Run a verb that needs room for a name of the token, or bytes. If it has none, release what nobody uses any more,
    and run the verb once more.

    Raise what the verb raises.
    """
    try:
        return await verb()
    except Problem as problem:
        if problem.error not in _FULL or not await _release(context, token=token):
            raise
    return await verb()


async def _release(context: Context, *, token: str) -> bool:
    """Release the names and bytes of a token that nobody uses any more. Return whether there were any.

    These are names whose uploads are over or whose node is dead, with the bytes reserved for them, and names for which
    only downloads of dead nodes waited.
    """
    found = await context.store.tokens.read(token=token)
    if found is None:
        return False
    released, transfers, alive = False, context.store.transfers, context.node.is_alive
    in_use = 0
    for name, nodes in wanted_in(found[1]):
        for node in nodes:
            if not await alive(node):
                await transfers.unwant(token=token, name=name, node=node)
                released = True
    for name, transfer_id in transfers_in(found[1]):
        transfer = await transfers.look(token=token, name=name, use=False)
        if transfer is None or transfer.id != transfer_id:
            await transfers.release(token=token, name=name, transfer_id=transfer_id)
            released = True
        elif transfer.state is not State.INTERRUPTED and not await alive(transfer.decider):
            await context.endings.lose(transfer)
            released = True
        else:
            in_use += transfer.reserved
    reserved = int(found[1].get("reserved", 0))
    if in_use < reserved:
        await context.store.tokens.recount(token=token, read=reserved, counted=in_use)
        released = True
    return released
