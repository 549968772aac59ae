"""The verbs about transfers. Most are one script in `lua/`; `relay.states.MOVES` says what each does in each state."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from relay.buffers import BATCH
from relay.errors import Error, Problem, StoreUnavailable
from relay.names import new_id
from relay.states import Answer, Outcome, State
from relay.store.commands import Commands, ms, pairs
from relay.store.offsets import offset_of
from relay.store.records import ANYBODY, Broken, Claimed, Ender, Final, Result, Returned, Touched, Transfer
from relay.store.streams import RedisStream
from relay.store.timing import CLAIM_MARGIN, JOINED_TTL, LINGER, lease
from relay.store.tokens import need_bytes, need_room, need_token

#: Bytes of a token that are reserved ahead for an upload whose length is unknown.
RESERVE_AHEAD = 4 * 1024 * 1024
#: Outcomes that come from outside. Even an upload that waits must be told of them through its acks stream.
_FROM_OUTSIDE = {Outcome.CANCELLED, Outcome.REVOKED, Outcome.NODE_LOST}
#: Outcomes that are observed, not requested: the download's node is dead, or Redis has lost a part of the transfer.
_OBSERVED = {Outcome.NODE_LOST, Outcome.STORE_LOST}
#: Maximum entries of a stream from the marker of its end onwards. After the marker there can be what the uploader's
#: side was just about to write: the chunks of one write, and a marker of its own.
_TAIL = BATCH + 2


class Transfers:
    """Claim names, join uploads, keep transfers alive, and end them."""

    def __init__(self, commands: Commands) -> None:
        self._commands = commands
        self._settings = commands.settings
        self._keys = commands.keys
        self._lease = ms(lease(commands.settings))

    def identify(self, *, token: str, name: str, transfer_id: str = "", sha256: str = "") -> Transfer:
        """Return the identity of a transfer before Redis knows of it; by default with a fresh id."""
        transfer_id = transfer_id or new_id()
        keys = self._keys.of(token, name, transfer_id)
        return Transfer(token=token, name=name, id=transfer_id, keys=keys, sha256=sha256)

    def stream(self, transfer: Transfer) -> RedisStream:
        """Return the transfer's stream through Redis, for either side."""
        return RedisStream(self._commands, transfer)

    def at_leg(self, transfer: Transfer, leg: int) -> Transfer:
        """Return the transfer with the streams of another leg."""
        keys = self._keys.of(transfer.token, transfer.name, transfer.id, leg)
        return replace(transfer, leg=leg, keys=keys)

    async def claim(
        self,
        transfer: Transfer,
        *,
        node: str,
        length: int | None,
        media_type: str,
        use: bool,
        state: State = State.WAITING,
        proof: str = "",
    ) -> "Transfer | Outcome | Claimed":
        """Claim the name for an upload on `node`.

        Return `Claimed` if the upload has the name now; the `Transfer` that holds the name if another one has it; or
        the `Outcome` if this claim has ended before its reply was read. `use` counts as a use of the token.
        With `state` INTERRUPTED, the bytes come when its uploader returns. `proof` is that of the client's `Access`.
        The transfer's `upload` and `sha256` are recorded with it.
        Raise Problem(UNKNOWN_TOKEN), Problem(CROWDED), Problem(SPENT), or Problem(TOO_LARGE) for the token's own limit.
        """
        reply = await self._commands.run(
            "claim",
            [transfer.keys.token, transfer.keys.transfer, transfer.keys.acks],
            [
                transfer.id,
                transfer.name,
                node,
                "" if length is None else length,
                media_type,
                *self._use(counts=use),
                ms(self._wait(state) + CLAIM_MARGIN),
                self._settings.token_names,
                self._settings.token_bytes,
                state,
                int(self._settings.rejoin_wait > 0 or bool(transfer.upload)),
                transfer.upload,
                proof,
                transfer.sha256,
            ],
        )
        need_token(reply)
        need_room(reply)
        if reply[0] == Answer.BUSY.encode():
            return self._load(transfer.token, transfer.name, reply)
        if reply[0] == Answer.ENDED.encode():
            ended = Outcome(reply[1].decode())
            return Outcome.STORE_LOST if ended is Outcome.BROKEN else ended
        need_bytes(reply)
        if reply[0] == b"too_large":
            raise Problem(Error.TOO_LARGE, most=int(reply[1]))
        return Claimed(reply[1].decode().split(), *map(int, reply[2:5]))

    async def describe(self, transfer: Transfer, *, upload: str, sha256: str) -> bool:
        """Record the SHA-256 of the whole file, which its uploader has not known before. Return False if it has ended.

        `upload` is the digest of the address that the uploader knows.
        """
        reply = await self._commands.run("describe", [transfer.keys.transfer], [transfer.id, upload, sha256])
        return int(reply) == 1

    async def reserve(self, transfer: Transfer, *, total: int) -> int:
        """Reserve `total` bytes of the token for an upload, or as many as are left. Return the bytes reserved for it.

        Raise Problem(SPENT) if the token has none left; return 0 if the transfer has ended.
        """
        keys = [transfer.keys.token, transfer.keys.transfer]
        arguments: list[str | int] = [transfer.id, self._settings.token_bytes, total]
        patience = self._settings.transfer_patience
        reply = await self._commands.run("reserve", keys, arguments, patience=patience)
        need_bytes(reply)
        return int(reply[1]) if reply[0] == b"reserved" else 0

    async def no_longer_waiting(self, waiting: Sequence[Transfer]) -> list[Transfer]:
        """Return the transfers that no longer wait, or whose token has expired.

        Leave out those whose server is away. Raise StoreUnavailable if all servers are.
        """
        by_server: dict[str, list[Transfer]] = {}
        for transfer in waiting:
            by_server.setdefault(await self._commands.server_of(transfer.keys.token), []).append(transfer)
        found: list[list[Transfer]] = []
        failure: StoreUnavailable | None = None
        for group in by_server.values():
            try:
                found.append(await self._no_longer_waiting(group))
            except StoreUnavailable as error:
                failure = error
        if failure is not None and not found:
            raise failure
        return [transfer for group in found for transfer in group]

    async def _no_longer_waiting(self, waiting: Sequence[Transfer]) -> list[Transfer]:
        """Do the same for transfers of one server."""
        tokens = list(dict.fromkeys(transfer.keys.token for transfer in waiting))
        replies = await self._commands.ask(
            *(("HMGET", transfer.keys.transfer, "id", "state") for transfer in waiting),
            *(("EXISTS", token) for token in tokens),
        )
        live = {token for token, exists in zip(tokens, replies[len(waiting) :], strict=True) if exists}
        return [
            transfer
            for transfer, now in zip(waiting, replies, strict=False)
            if transfer.keys.token not in live or now != [transfer.id.encode(), State.WAITING.encode()]
        ]

    async def vouch(self, transfer: Transfer, *, downloader: bool = False) -> None:
        """Record that the uploader of a waiting transfer, or its `downloader`, was found alive just now."""
        field = "taken" if downloader else "vouched"
        await self._commands.run("vouch", [transfer.keys.transfer], [transfer.id, field])

    async def look(self, *, token: str, name: str, use: bool, waits_on: str = "", proof: str = "") -> Transfer | None:
        """Return the live transfer of a name, or None. `use` counts as a use of the token. `proof` is that of `Access`.

        If there is none and a download waits for it on the node `waits_on`, that is recorded: the next claim of the
        name wakes that node. Raise Problem(UNKNOWN_TOKEN) or Problem(CROWDED).
        """
        keys = [self._keys.token(token), self._keys.transfer(token, name)]
        reply = await self._commands.run(
            "look", keys, [*self._use(counts=use), name, waits_on, self._settings.token_names, proof]
        )
        need_token(reply)
        need_room(reply)
        return self._load(token, name, reply) if reply[0] == b"found" else None

    async def unwant(self, *, token: str, name: str, node: str) -> None:
        """Record that no download waits for this name on `node` any more."""
        await self._commands.run("unwant", [self._keys.token(token)], [name, node])

    async def release(self, *, token: str, name: str, transfer_id: str) -> None:
        """Remove a name from its token's hash if the transfer with this id is over and the name has no other one."""
        keys = [self._keys.token(token), self._keys.transfer(token, name)]
        await self._commands.run("release", keys, [transfer_id, name])

    async def join(self, transfer: Transfer, *, joiner: str, node: str, start: int = 0) -> Answer:
        """Join a download on `node`, named by its id `joiner`, to an upload, from byte offset `start` on.

        Return JOINED; ATTACHED if the uploader is away, so that the download has to join once more when it is back;
        TAKEN if the upload has another download; or ABSENT if it or this leg of it is over.
        """
        arguments: list[str | int] = [transfer.id, transfer.name, joiner, node, ms(JOINED_TTL), self._lease]
        arguments += [transfer.leg, start]
        return Answer((await self._commands.run("join", transfer.keys.all(), arguments)).decode())

    async def acknowledged(self, transfer: Transfer) -> int:
        """Return the byte offset up to which the downloader has been handed everything, as far as Redis knows."""
        (acks,) = await self._commands.ask(("XREVRANGE", transfer.keys.acks, "+", "-", "COUNT", 1))
        return max(transfer.position, offset_of(acks[0][0]) if acks else 0)

    async def finish(self, transfer: Transfer, *, joiner: str) -> Answer:
        """Ask whether the download `joiner` may hand over the last bytes. Return FINISHING or GONE.

        From then on only that download decides how the transfer ends. `end` overrules it only for callers that have
        observed that its node is dead, or that Redis has lost the transfer.
        """
        arguments: list[str | int] = [transfer.id, joiner, self._lease]
        patience = self._settings.transfer_patience
        reply = await self._commands.run("finish", [transfer.keys.transfer], arguments, patience=patience)
        return Answer(reply.decode())

    async def leave(self, transfer: Transfer, *, joiner: str, position: int = 0) -> Broken | Answer:
        """End the leg because the download `joiner` has left, with everything up to byte offset `position` handed over.

        Return `Broken`; KEPT if the transfer cannot go on without it, so that it has to end; GONE if that download has
        left already.
        """
        wait = self._settings.rejoin_wait + CLAIM_MARGIN
        arguments: list[str | int] = [joiner, transfer.leg, position, ms(LINGER), ms(wait)]
        return await self._break("leave", transfer, arguments, at=1)

    async def interrupt(
        self, transfer: Transfer, *, sender: str = "", dead: str = "", keeper: str = "", position: int = 0
    ) -> Broken | Answer:
        """End the leg because the uploader's request `sender` has left, or its node `dead` has died.

        From then on the node `keeper` waits for the uploader. `position` is the byte offset up to which the downloader
        has everything, as far as the caller knows.

        Return `Broken`; KEPT if the uploader cannot return or the last bytes are on their way; GONE if another request
        of the uploader has taken its place.
        """
        wait = self._settings.resume_wait + CLAIM_MARGIN
        arguments: list[str | int] = [sender, dead, transfer.leg, ms(LINGER), ms(wait), keeper, position]
        return await self._break("interrupt", transfer, arguments, at=2)

    async def take_back(
        self,
        transfer: Transfer,
        *,
        upload: str,
        sender: str,
        node: str,
        state: State,
        length: int | None = None,
        reached: int = 0,
    ) -> Returned | Answer:
        """Let the uploader return by its request `sender` on `node`, which takes the place of the request before.

        `upload` is the digest of the address to which it returns. `state` is WAITING if the request brings bytes, or
        INTERRUPTED if it only asks. `length` is the length of the whole file, if the request knows it. `reached` is the
        byte offset up to which the caller knows that the downloader has everything.
        Return `Returned`; KEPT if the last bytes are on their way; or GONE.
        """
        wait = self._wait(state) + CLAIM_MARGIN
        arguments: list[str | int] = [upload, sender, node, state, transfer.leg, ms(LINGER), ms(wait)]
        arguments += ["" if length is None else length, reached]
        broken = await self._break("return", transfer, arguments, at=4)
        if isinstance(broken, Answer):
            return broken
        return Returned(replace(broken.transfer, state=state), broken.other)

    async def _break(self, verb: str, transfer: Transfer, arguments: list[str | int], *, at: int) -> "Broken | Answer":
        """Run a verb that ends a leg, with the streams of the leg that Redis says. `at`: which argument the leg is."""
        while True:
            arguments[at] = transfer.leg
            patience = self._settings.transfer_patience
            reply = await self._commands.run(verb, transfer.keys.all(), [transfer.id, *arguments], patience=patience)
            match [part.decode() for part in reply]:
                case ["moved", leg]:
                    transfer = self.at_leg(transfer, int(leg))
                case ["broken", leg, other]:
                    return Broken(self.at_leg(transfer, int(leg)), other)
                case ["returned", leg, position, downloader, former]:
                    moved = self.at_leg(transfer, int(leg))
                    return Broken(replace(moved, position=int(position), downloader=downloader), former)
                case [answer]:
                    return Answer(answer)

    async def touch(
        self, transfer: Transfer, *, written: str = "", joiner: str = "", position: int = 0, sender: str = ""
    ) -> Touched:
        """Return how the transfer stands, and renew the keys that this side keeps alive.

        It stands as STORE_LOST if Redis has it in another form than this side.

        A streaming upload passes the ID of the last entry it has `written`. A download passes its id as `joiner`, and
        the `position` up to which it has handed over bytes. An upload passes the id of its request as `sender`, if that
        is not the one that claimed the name.
        """
        reply = await self._commands.run(
            "touch",
            transfer.keys.all(),
            [
                transfer.id,
                written,
                joiner,
                position,
                ms(self._settings.token_floor),
                self._lease,
                _TAIL,
                transfer.leg,
                sender or transfer.id,
            ],
            patience=self._settings.transfer_patience,
        )
        match [part.decode() for part in reply]:
            case ["live", state, downloader, acknowledged, start, uploader, joined]:
                position = offset_of(acknowledged.encode())
                return Touched(None, State(state), downloader, position, int(start), uploader, joined, transfer.leg)
            case ["broken", leg]:
                return Touched(Outcome.BROKEN, leg=int(leg))
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
        by: Ender = ANYBODY,
        *,
        within: Collection[State] = (State.WAITING, State.STREAMING, State.INTERRUPTED),
        any_leg: bool = True,
    ) -> "Final | Answer":
        """End the transfer, if the name still belongs to it (or to the download, or the request, that ends it).

        Unless `any_leg`: only if the transfer is still in its present leg.
        Exactly one caller gets `Final`. The others get GONE; or KEPT if the transfer is in none of the states `within`.
        """
        if by.joiner or outcome in _OBSERVED:
            within = {*State}
        while True:
            reply = await self._commands.run(
                "end",
                [*transfer.keys.all(), transfer.keys.result],
                [
                    by.joiner or transfer.id,
                    transfer.name,
                    outcome,
                    ms(LINGER),
                    by.position,
                    " ".join(sorted(within)),
                    int(outcome in _FROM_OUTSIDE),
                    " ".join(by.unneeded),
                    transfer.leg,
                    by.sender,
                    transfer.id,
                    ms(self._settings.resume_wait),
                ],
                patience=self._settings.transfer_patience,
            )
            if reply[0] == b"moved" and not any_leg:
                return Answer.GONE
            if reply[0] != b"moved":
                break
            for stream in by.unneeded:
                await self.delete(getattr(transfer.keys, stream))
            transfer = self.at_leg(transfer, int(reply[1]))
        if reply[0] != b"ended":
            return Answer(reply[0].decode())
        was = Transfer.load(self._keys, transfer.token, transfer.name, pairs(reply[3]))
        return Final(was, delivered=int(reply[2]), seconds=int(reply[1]) - (was.joined or was.created))

    async def result(self, transfer: Transfer) -> Result | None:
        """Return how a resumable upload ended, if that was not long ago."""
        (reply,) = await self._commands.ask(("HMGET", transfer.keys.result, "outcome", "bytes", "upload", "sha256"))
        if reply[0] is None:
            return None
        return Result(Outcome(reply[0].decode()), int(reply[1]), reply[2].decode(), (reply[3] or b"").decode())

    async def delivered(self, transfers: Sequence[Transfer]) -> list[int]:
        """Return how many bytes of each of a token's transfers its downloader is recorded to have. Raise Problem."""
        if not transfers:
            return []
        last = await self._commands.ask(*(("XREVRANGE", t.keys.acks, "+", "-", "COUNT", 1) for t in transfers))
        return [max(t.position, offset_of(ack[0][0]) if ack else 0) for t, ack in zip(transfers, last, strict=True)]

    async def delete(self, stream: str) -> None:
        """Delete one of the streams of a leg, which nobody will read any more."""
        await self._commands.ask(("UNLINK", stream), patience=self._settings.transfer_patience)

    def _load(self, token: str, name: str, reply: Sequence[Any]) -> Transfer:
        """Return the transfer in a reply: one word, the fields of its hash, and the time in milliseconds."""
        return Transfer.load(self._keys, token, name, pairs(reply[1]), read_at=int(reply[2]))

    def _wait(self, state: State) -> float:
        """Return the seconds that an upload waits: for its downloader, or for its own uploader if that is away."""
        return self._settings.resume_wait if state is State.INTERRUPTED else self._settings.upload_wait

    def _use(self, *, counts: bool) -> list[int]:
        return [ms(self._settings.token_use) if counts else 0, ms(self._settings.token_max)]
