"""How an upload gets its name."""

from functools import partial
from time import monotonic

from relay import tracing
from relay.errors import Error, Problem
from relay.logs import audit
from relay.states import Outcome, State
from relay.store.records import Claimed, Transfer
from relay.transfer.context import Context
from relay.transfer.doubt import PATIENCE, confirm, with_room


async def claim(
    context: Context,
    transfer: Transfer,
    *,
    length: int | None,
    media_type: str,
    proof: str,
    state: State = State.WAITING,
) -> Claimed | Outcome:
    """Claim the name of a transfer, and wake the downloads that wait for it. Return how it ended, if it has already.

    If another upload holds the name, make sure that its client is still there before refusing this one: raise
    Problem(NAME_IN_USE), or another Problem. `length` is that of the file, None if it is unknown. With `state`
    INTERRUPTED, the bytes come in a later request.
    """
    deadline, use = monotonic() + PATIENCE, True
    while True:
        answer = await with_room(
            context,
            transfer.token,
            partial(
                context.store.transfers.claim,
                transfer,
                node=context.node.id,
                length=length,
                media_type=media_type,
                use=use,
                state=state,
                proof=proof,
            ),
        )
        if isinstance(answer, Outcome):
            return answer
        if isinstance(answer, Claimed):
            context.node.load.used_tokens.add(transfer.token)
            claimed = {"transfer": transfer.id, "token": transfer.token, "name": transfer.name}
            audit("claimed", **claimed)
            tracing.begin("upload", "claimed", **claimed, length=length)
            for node in answer.wanted:
                await context.node.inbox.send(node, transfer.keys.transfer)
            return answer
        use = False
        if monotonic() > deadline or await confirm(context, answer, trust=0) is not None:
            raise Problem(Error.NAME_IN_USE)
