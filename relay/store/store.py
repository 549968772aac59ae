"""What can be done with tokens and transfers, and what nodes tell each other.

Each public method is one verb, typed and keyword-only, and most are one script in `lua/`.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from limits import RateLimitItem
from limits.aio.strategies import SlidingWindowCounterRateLimiter

from relay.errors import Error, Problem
from relay.names import new_id
from relay.settings import Settings
from relay.states import Answer, Outcome, State
from relay.store.commands import Calls, ms, result
from relay.store.offsets import offset_of
from relay.store.rates import Counters, Rate
from relay.store.records import Final, Holder, Touched, Transfer, transfers_in
from relay.store.redis_py import Clients
from relay.store.streams import RedisStream

#: Outcomes that come from outside, so that even an upload that still waits has to be left word of them.
_TOLD = {Outcome.CANCELLED, Outcome.REVOKED, Outcome.NODE_LOST}
#: Outcomes that are found, not wished for: that there is no download any more, or that Redis has lost some of it.
_FOUND = {Outcome.NODE_LOST, Outcome.STORE_LOST}
#: Seconds a stream's keys stay after its end, for the other side to read how it ended.
LINGER = 30.0
#: Seconds between a streaming side's looks at how its transfer stands, each of which renews its keys.
TOUCH = 5.0
#: Seconds the upload's keys live when a download has joined: until it knows, even if its wake-up was lost.
_JOINED_TTL = 60.0
#: Seconds a claim outlives the upload's wait, so that it never ends before the wait does.
_CLAIM_MARGIN = 60.0
#: Entries of an inbox at most: more than wake-ups can pile up between two reads.
_INBOX_MOST = 100_000
_INBOX_TTL = 60.0
#: Fields of a token's hash that are not about names: `created`, `uses`, `bytes`.
_TOKEN_FIELDS = 3
_NODES_TTL = 3600.0


class Store(Calls):
    """The verbs."""

    def __init__(self, settings: Settings, clients: Clients) -> None:
        super().__init__(settings, clients)
        self._rates = SlidingWindowCounterRateLimiter(Counters(clients.commands, self.keys.rate))

    # -- tokens ------------------------------------------------------------------------------------------

    async def mint(self, *, token: str) -> None:
        """Makes the token, with its whole life ahead."""
        await self.run("mint", [self.keys.token(token)], [ms(self.settings.token_life)])

    async def token(self, *, token: str) -> tuple[float, dict[str, str]] | None:
        """The seconds the token has left and its fields; None where it is gone.  Does not use it."""
        key = self.keys.token(token)
        left, fields = await self.ask(("PTTL", key), ("HGETALL", key))
        return (left / 1000, _pairs(fields)) if left >= 0 else None

    async def carried(self, *, token: str) -> int:
        """Bytes that the transfers of a token which have ended have delivered; 0 where there is no token."""
        (delivered,) = await self.ask(("HGET", self.keys.token(token), "bytes"))
        return int(delivered or 0)

    async def revoke(self, *, token: str) -> list[tuple[str, str]] | None:
        """Deletes the token; answers the names and ids of its transfers, or None where it was gone already."""
        keys = [self.keys.token(token), self.keys.revoked(token, new_id())]
        answer = await self.run("revoke", keys, [ms(LINGER)])
        fields = _pairs(answer)
        return transfers_in(fields) if fields else None

    # -- a transfer's life -------------------------------------------------------------------------------

    def transfer(self, *, token: str, name: str, transfer_id: str) -> Transfer:
        """The identity of a transfer, before Redis knows of it."""
        return Transfer(token=token, name=name, id=transfer_id, keys=self.keys.of(token, name, transfer_id))

    def stream(self, transfer: Transfer) -> RedisStream:
        """The transfer's stream, for either side."""
        return RedisStream(self, transfer.keys)

    async def claim(
        self,
        transfer: Transfer,
        *,
        node: str,
        length: int | None,
        media_type: str,
        use: bool,
    ) -> "Holder | Outcome | list[str]":
        """Claims the name.  Answers the nodes where a download waits for it, or who holds it; or, where a claim
        has ended before its reply could be had, how.

        Raises Problem(UNKNOWN_TOKEN) or Problem(CROWDED).
        """
        answer = await self.run(
            "claim",
            [transfer.keys.token, transfer.keys.transfer, transfer.keys.acks],
            [
                transfer.id,
                transfer.name,
                node,
                "" if length is None else length,
                media_type,
                *self._use(counts=use),
                ms(self.settings.upload_wait + _CLAIM_MARGIN),
                self._fields_most,
            ],
        )
        _need_token(answer)
        _need_room(answer[0])
        if answer[0] == Answer.BUSY.encode():
            fields = _pairs(answer[1])
            holder = Transfer.load(self.keys, transfer.token, transfer.name, fields)
            return Holder(holder, vouched=int(fields.get("vouched", 0)), now=int(answer[2]))
        if answer[0] == Answer.ENDED.encode():
            return Outcome(answer[1].decode())
        return str(answer[1].decode()).split()

    async def news(self, waiting: Sequence[Transfer]) -> list[Transfer]:
        """Those of the transfers that do not wait any more, by what Redis says, or whose tokens are gone."""
        tokens = list(dict.fromkeys(transfer.keys.token for transfer in waiting))

        async def ask() -> list[Any]:
            pipe = self.commands.pipeline(transaction=False)
            for transfer in waiting:
                pipe.hmget(transfer.keys.transfer, "id", "state")
            for token in tokens:
                pipe.exists(token)
            return await pipe.execute()

        answers = await self.call(ask)
        lives = {token for token, exists in zip(tokens, answers[len(waiting) :], strict=True) if exists}
        return [
            transfer
            for transfer, now in zip(waiting, answers, strict=False)
            if transfer.keys.token not in lives or now != [transfer.id.encode(), State.WAITING.encode()]
        ]

    async def vouch(self, transfer: Transfer) -> None:
        """Says that the uploader of a transfer that waits was found alive just now."""
        await self.run("vouch", [transfer.keys.transfer], [transfer.id])

    async def look(self, *, token: str, name: str, use: bool, waits_on: str = "") -> Transfer | None:
        """The live transfer of a name, or None.  `use` counts as a use of the token.

        Where there is none, its claim will wake the node `waits_on`, where a download waits for it.
        Raises Problem(UNKNOWN_TOKEN), or Problem(CROWDED).
        """
        keys = [self.keys.token(token), self.keys.transfer(token, name)]
        answer = await self.run("look", keys, [*self._use(counts=use), name, waits_on, self._fields_most])
        _need_token(answer)
        _need_room(answer[0])
        return Transfer.load(self.keys, token, name, _pairs(answer[1])) if answer[0] == b"found" else None

    async def unwant(self, *, token: str, name: str, node: str) -> None:
        """Says that no download waits on `node` for this name any more."""
        await self.run("unwant", [self.keys.token(token)], [name, node])

    async def join(self, transfer: Transfer, *, joiner: str, node: str) -> Answer:
        """Joins a download, named by its id `joiner`: JOINED, TAKEN or ABSENT."""
        arguments: list[str | int] = [transfer.id, transfer.name, joiner, node, ms(_JOINED_TTL), self._lease]
        return Answer((await self.run("join", transfer.keys.all(), arguments)).decode())

    async def finish(self, transfer: Transfer, *, joiner: str) -> Answer:
        """Asks for a download whether it may hand over the last bytes: FINISHING, or GONE.

        From then on it decides how the transfer ends: of others `end` listens only to those who have found its
        node dead, or lost.
        """
        arguments: list[str | int] = [transfer.id, joiner, self._lease]
        patience = self.settings.transfer_patience
        return Answer((await self.run("finish", [transfer.keys.transfer], arguments, patience=patience)).decode())

    async def touch(self, transfer: Transfer, *, written: str = "", joiner: str = "", position: int = 0) -> Touched:
        """Says whether the transfer lives, as this side knows it, and renews what this side keeps alive.

        An upload that streams tells the ID of the last entry it has `written`, a download its `joiner` and the
        `position` up to which it has handed over; an upload that still waits tells nothing.
        """
        answer = await self.run(
            "touch",
            transfer.keys.all(),
            [transfer.id, written, joiner, position, ms(self.settings.token_floor), self._lease],
            patience=self.settings.transfer_patience,
        )
        match [part.decode() for part in answer]:
            case ["live", state, downloader, acked]:
                return Touched(None, State(state), downloader, position=offset_of(acked.encode()))
            case ["ended", outcome, delivered]:
                return Touched(Outcome(outcome), position=int(delivered))
            case ["revoked", state]:
                return Touched(Outcome.REVOKED, State(state))
            case _:
                return Touched(Outcome.STORE_LOST)

    async def end(
        self,
        transfer: Transfer,
        outcome: Outcome,
        *,
        joiner: str = "",
        position: int = 0,
        only_waiting: bool = False,
        mine: Sequence[str] = (),
    ) -> "Final | Answer":
        """Ends the transfer, if it is still this one (or, with `joiner`, still that download of it).

        `position`: bytes handed to the downloader, where the caller knows; else the last acknowledgement's.
        `mine`: which of `chunks` and `acks` only the caller reads, and reads no more: they are deleted.
        Exactly one caller hears `Final`.  The others hear GONE, or KEPT where it is finishing, or `only_waiting`
        and it streams.
        """
        within = {State.WAITING} if only_waiting else {State.WAITING, State.STREAMING}
        if joiner or outcome in _FOUND:
            within = {*State}
        answer = await self.run(
            "end",
            transfer.keys.all(),
            [
                joiner or transfer.id,
                transfer.name,
                outcome,
                ms(LINGER),
                position,
                " ".join(sorted(within)),
                int(outcome in _TOLD),
                " ".join(mine),
            ],
            patience=self.settings.transfer_patience,
        )
        if answer[0] != b"ended":
            return Answer(answer[0].decode())
        was = Transfer.load(self.keys, transfer.token, transfer.name, _pairs(answer[3]))
        return Final(was, delivered=int(answer[2]), seconds=int(answer[1]) - (was.joined or was.created))

    async def forget(self, *streams: str) -> None:
        """Deletes streams that nobody will read any more."""
        await self.ask(("UNLINK", *streams), patience=self.settings.transfer_patience)

    # -- rates -------------------------------------------------------------------------------------------

    async def spend(self, what: Rate, limit: RateLimitItem, *, address: str) -> float:
        """Counts one for the address; where it has had all it may, counts nothing and answers the seconds until
        there is more.  0 where it was counted."""
        if await self.call(lambda: self._rates.hit(limit, what, address)):
            return 0.0
        return await self._until_more(what, limit, address)

    async def is_spent(self, what: Rate, limit: RateLimitItem, *, address: str) -> float:
        """The seconds until the address has some left; 0 where it has.  Counts nothing."""
        if await self.call(lambda: self._rates.test(limit, what, address)):
            return 0.0
        return await self._until_more(what, limit, address)

    async def _until_more(self, what: Rate, limit: RateLimitItem, address: str) -> float:
        window = await self.call(lambda: self._rates.get_window_stats(limit, what, address))
        return max(1.0, window.reset_time - time.time())

    # -- nodes -------------------------------------------------------------------------------------------

    async def beat(self, *, node: str, facts: Mapping[str, str | int]) -> dict[str, float]:
        """Signs the node in.  Answers every known node's seconds since its last sign of life.

        On a connection of its own: a node must not seem dead because its clients are many.
        """
        settings, patience = self.settings, self.settings.redis_patience
        send = self.wires.call
        sign: list[str | int] = [ms(3 * settings.heartbeat), *(part for pair in facts.items() for part in pair)]
        call: list[str | int] = [node, ms(10 * settings.node_death), ms(_NODES_TTL)]
        await self.repeat(lambda: self.evaluate("beat", [self.keys.node(node)], sign, send), patience=patience)
        ages = await self.repeat(lambda: self.evaluate("roll", [self.keys.nodes], call, send), patience=patience)
        return {
            other.decode(errors="replace"): int(age) / 1000 for other, age in zip(ages[::2], ages[1::2], strict=True)
        }

    async def is_beating(self, *, node: str) -> bool:
        """Whether a node has beaten lately, asked of Redis: for one that is not on our list yet."""
        return (await self.ask(("EXISTS", self.keys.node(node)))) == [1]

    async def sign_off(self, *, node: str) -> None:
        """Takes a node that ends off the list, and its inbox away."""

        await self.ask(("ZREM", self.keys.nodes, node))
        for key in (self.keys.node(node), self.keys.inbox(node), self.keys.uploads(node)):  # in slots of their own
            await self.forget(key)

    async def wake(self, *, node: str, about: str) -> None:
        """Wakes whoever on `node` listens to `about`."""
        await self.run("wake", [self.keys.inbox(node)], [about, _INBOX_MOST, ms(_INBOX_TTL)])

    async def inbox(self, *, node: str, after: str, timeout: float) -> tuple[str, list[str]]:
        """Waits up to `timeout` seconds for wake-ups after entry ID `after`, and trims those before it.

        Answers the last ID seen and what the wake-ups are about.  Raises StoreUnavailable at once.
        """

        key = self.keys.inbox(node)
        trim = ("XTRIM", key, "MINID", "=", after)
        wait = ("XREAD", "COUNT", 1000, "BLOCK", ms(timeout), "STREAMS", key, after)

        async def read() -> Any:
            return result((await self.wires.call(key, [trim, wait]))[1])

        reply = await self.repeat(read, patience=0, blocks=timeout)
        if not reply:
            return after, []
        entries = reply[0][1]
        return entries[-1][0].decode(), [about.decode(errors="replace") for _, (_, about) in entries]

    async def check(self, *, node: str) -> None:
        """Raises StoreUnavailable unless Redis answers a write."""
        await self.wake(node=node, about="check")

    # -- how it is done ----------------------------------------------------------------------------------

    @property
    def _lease(self) -> int:
        """Milliseconds that a side's stream lives when it has been renewed: two looks, and a failure of Redis."""
        return ms(2 * TOUCH + self.settings.transfer_patience)

    @property
    def _fields_most(self) -> int:
        """Fields that a token's hash may have; 0: any number."""
        return self.settings.token_names + _TOKEN_FIELDS if self.settings.token_names else 0

    def _use(self, *, counts: bool) -> list[int]:
        return [ms(self.settings.token_use) if counts else 0, ms(self.settings.token_max)]


def _pairs(flat: Sequence[bytes]) -> dict[str, str]:
    """The fields of a hash as a script answers them."""
    return {flat[i].decode(): flat[i + 1].decode() for i in range(0, len(flat), 2)}


def _need_token(answer: Sequence[bytes]) -> None:
    if answer[0] == b"no_token":
        raise Problem(Error.UNKNOWN_TOKEN)


def _need_room(answer: bytes) -> None:
    if answer == b"crowded":
        raise Problem(Error.CROWDED)
