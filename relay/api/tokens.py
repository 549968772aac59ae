"""Handlers for tokens: make one, show it, revoke it."""

from starlette.responses import JSONResponse, Response

from relay.api.exchange import Exchange
from relay.credentials import presented
from relay.errors import Error, Problem
from relay.logs import note


async def make_token(exchange: Exchange) -> None:
    """Answer with a new token, if the client may have one."""
    relay = exchange.relay
    await exchange.services.admission.admit(presented(exchange.headers), address=exchange.address)
    token = await relay.make_token()
    note(token=token.id)
    if exchange.wants_json():
        life = int(relay.settings.token_life)
        await exchange.answer(JSONResponse({"token": str(token), "expires_in": life}))
    else:
        await exchange.text(str(token))


async def show_token(exchange: Exchange) -> None:
    """Answer with the seconds that the token has left, and with its transfers. This does not count as a use."""
    left, live = await exchange.relay.list_token(exchange.token())
    if exchange.wants_json():
        delivered = await exchange.relay.delivered(live)
        transfers = [
            {"name": t.name, "state": t.state, "length": t.length, "delivered": bytes_}
            for t, bytes_ in zip(live, delivered, strict=True)
        ]
        await exchange.answer(JSONResponse({"expires_in": int(left), "transfers": transfers}))
        return
    lines = [f"expires in {int(left)} s"]
    lines += [f"{t.state:<10} {'?' if t.length is None else t.length:>15} {t.name}" for t in live]
    await exchange.text("\n".join(lines))


async def revoke_token(exchange: Exchange) -> None:
    """Delete the token and end its transfers."""
    access = exchange.token()
    if header := exchange.failed_condition():
        await exchange.relay.list_token(access)  # a condition counts only if the token is known
        raise Problem(Error.CONDITION_FAILED, header=header)
    await exchange.relay.revoke(access)
    await exchange.answer(Response(status_code=204))
