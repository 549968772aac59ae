"""The only module that gives Redis commands.  Each public method is one verb, typed and keyword-only.

Every verb may be repeated safely, because a reply can be lost after the command was carried out: scripts
compare ids, and stream entries carry their offsets as IDs.  So one loop, `Store.repeat`, repeats whatever
fails until its patience ends, and then raises `StoreUnavailable`; no redis exception leaves this module.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Self, TypeVar

from limits import RateLimitItem
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from redis.exceptions import ExecAbortError, OutOfMemoryError, RedisError, ResponseError

from relay.clients import COMMAND_TIMEOUT, PASSING, Clients, connect
from relay.errors import Error, Problem, StoreUnavailable
from relay.flow import chunk_id, end_id, offset_of, trim_id
from relay.keys import Keys, TransferKeys
from relay.metrics import Metrics
from relay.overview import NodeReport, Overview, Progress, TokenLife, by_urgency
from relay.rates import Counters, Rate
from relay.settings import Settings
from relay.states import Answer, Outcome, State
from relay.streams import Ack, Entry

log = logging.getLogger("relay.store")

T = TypeVar("T")

#: Outcomes that come from outside, so that even an upload that still waits has to be left word of them.
_TOLD = {Outcome.CANCELLED, Outcome.REVOKED, Outcome.NODE_LOST}
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
_TOKENS_TTL = 3600.0
#: Tokens that one beat of one node asks about, and for how many seconds no other node is asked about them.
_OVER_MOST, _OVER_PAUSE = 1000, 10.0
#: Commands that are sent together, where there is one for each of many keys.
_BATCH = 2000
#: Tokens on the status page.
_LIVES_MOST = 50


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


@dataclass(frozen=True, slots=True)
class Holder:
    """What a refused claim learns: who holds the name, when its client was last found alive, and what time it
    is, both in milliseconds of Redis's clock."""

    transfer: Transfer
    vouched: int
    now: int


@dataclass(frozen=True, slots=True)
class Touched:
    """How a transfer ended, if it has, else its state, and its downloader's node; and after how many bytes."""

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


class Store:
    """The verbs.  `Store.connect` makes one; close it with `aclose`."""

    def __init__(self, settings: Settings, clients: Clients) -> None:
        self.settings = settings
        self.keys = Keys(settings.prefix)
        self.metrics = Metrics()
        self._clients = clients
        self.commands = clients.commands
        self.blocking = clients.blocking
        self._turns = asyncio.Semaphore(settings.redis_connections)
        #: When Redis last answered anybody, in the event loop's seconds.
        self._answered = float("-inf")
        self._rates = SlidingWindowCounterRateLimiter(Counters(clients.commands, self.keys.rate))
        self._scripts = {name: clients.commands.register_script(source) for name, source in _sources().items()}

    @classmethod
    def connect(cls, settings: Settings) -> Self:
        """Clients for `settings.redis_url`; connects at the first command, not here."""
        return cls(settings, connect(settings))

    async def aclose(self) -> None:
        await self._clients.aclose()

    # -- tokens ------------------------------------------------------------------------------------------

    async def mint(self, *, token: str) -> None:
        """Makes the token, with its whole life ahead."""
        await self._run("mint", [self.keys.token(token)], [_ms(self.settings.token_life)])

    async def token(self, *, token: str) -> tuple[float, dict[str, str]] | None:
        """The seconds the token has left and its fields; None where it is gone.  Does not use it."""

        async def ask() -> list[Any]:
            pipe = self.commands.pipeline(transaction=False)
            pipe.pttl(self.keys.token(token))
            pipe.hgetall(self.keys.token(token))
            return await pipe.execute()

        left, fields = await self.call(ask)
        return (left / 1000, _text(fields)) if left >= 0 else None

    async def carried(self, *, token: str) -> int:
        """Bytes that the transfers of a token which have ended have delivered; 0 where there is no token."""
        return int(await self.call(lambda: self.commands.hget(self.keys.token(token), "bytes")) or 0)

    async def revoke(self, *, token: str) -> list[tuple[str, str]] | None:
        """Deletes the token; answers the names and ids of its transfers, or None where it was gone already."""
        answer = await self._run("revoke", [self.keys.token(token)], [])
        fields = _pairs(answer)
        return transfers_in(fields) if fields else None

    # -- a transfer's life -------------------------------------------------------------------------------

    def transfer(self, *, token: str, name: str, transfer_id: str) -> Transfer:
        """The identity of a transfer, before Redis knows of it."""
        return Transfer(token=token, name=name, id=transfer_id, keys=self.keys.of(token, name, transfer_id))

    def stream(self, transfer: Transfer) -> "RedisStream":
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
        answer = await self._run(
            "claim",
            [transfer.keys.token, transfer.keys.transfer, transfer.keys.acks],
            [
                transfer.id,
                transfer.name,
                node,
                "" if length is None else length,
                media_type,
                *self._use(counts=use),
                _ms(self.settings.upload_wait + _CLAIM_MARGIN),
                self._fields_most,
            ],
        )
        _need_token(answer)
        _need_room(answer[0])
        if answer[0] == Answer.BUSY.encode():
            fields = _pairs(answer[1])
            holder = self._transfer(transfer.token, transfer.name, fields)
            return Holder(holder, vouched=int(fields.get("vouched", 0)), now=int(answer[2]))
        if answer[0] == Answer.ENDED.encode():
            return Outcome(answer[1].decode())
        return str(answer[1].decode()).split()

    async def vouch(self, transfer: Transfer) -> None:
        """Says that the uploader of a transfer that waits was found alive just now."""
        await self._run("vouch", [transfer.keys.transfer], [transfer.id])

    async def look(self, *, token: str, name: str, use: bool) -> Transfer | None:
        """The live transfer of a name, or None.  `use` counts as a use of the token.

        Raises Problem(UNKNOWN_TOKEN).
        """
        keys = [self.keys.token(token), self.keys.transfer(token, name)]
        answer = await self._run("look", keys, self._use(counts=use))
        _need_token(answer)
        return self._transfer(token, name, _pairs(answer[1])) if answer[0] == b"found" else None

    async def want(self, *, token: str, name: str, node: str, wanted: bool) -> None:
        """Says, or unsays, that a download waits on `node` for this name: its claim then wakes the node.

        Raises Problem(CROWDED).
        """
        _need_room(await self._run("want", [self.keys.token(token)], [name, node, int(wanted), self._fields_most]))

    async def join(self, transfer: Transfer, *, joiner: str, node: str) -> Answer:
        """Joins a download, named by its id `joiner`: JOINED, TAKEN or ABSENT."""
        arguments: list[str | int] = [transfer.id, joiner, node, _ms(_JOINED_TTL), self._lease]
        return Answer((await self._run("join", transfer.keys.all(), arguments)).decode())

    async def touch(self, transfer: Transfer, *, written: str = "", joiner: str = "", position: int = 0) -> Touched:
        """Says whether the transfer lives, as this side knows it, and renews what this side keeps alive.

        An upload that streams tells the ID of the last entry it has `written`, a download its `joiner` and the
        `position` up to which it has handed over; an upload that still waits tells nothing.
        """
        answer = await self._run(
            "touch",
            transfer.keys.all(),
            [transfer.id, written, joiner, position, _ms(self.settings.token_floor), self._lease],
            patience=self.settings.transfer_patience,
        )
        match [part.decode() for part in answer]:
            case ["live", state, downloader, acked]:
                return Touched(None, State(state), downloader, position=offset_of(acked.encode()))
            case ["ended", outcome, entry_id]:
                return Touched(Outcome(outcome), position=offset_of(entry_id.encode()))
            case ["revoked"]:
                return Touched(Outcome.REVOKED)
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
    ) -> "Final | Answer":
        """Ends the transfer, if it is still this one (or, with `joiner`, still that download of it).

        `position`: bytes handed to the downloader, where the caller knows; else the last acknowledgement's.
        Exactly one caller hears `Final`.  The others hear GONE, or KEPT where `only_waiting` and it streams.
        """
        answer = await self._run(
            "end",
            transfer.keys.all(),
            [
                joiner or transfer.id,
                transfer.name,
                outcome,
                _ms(LINGER),
                position,
                State.WAITING if only_waiting else "",
                int(outcome in _TOLD),
            ],
            patience=self.settings.transfer_patience,
        )
        if answer[0] != b"ended":
            return Answer(answer[0].decode())
        was = self._transfer(transfer.token, transfer.name, _pairs(answer[3]))
        return Final(was, delivered=int(answer[2]), seconds=int(answer[1]) - (was.joined or was.created))

    async def forget(self, *streams: str) -> None:
        """Deletes streams that nobody will read any more."""
        await self.call(lambda: self.commands.unlink(*streams), patience=self.settings.transfer_patience)

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
        beat, roll = self._scripts["beat"], self._scripts["roll"]
        sign: list[str | int] = [_ms(3 * settings.heartbeat), *(part for pair in facts.items() for part in pair)]
        call: list[str | int] = [node, _ms(10 * settings.node_death), _ms(_NODES_TTL)]
        await self.repeat(lambda: beat([self.keys.node(node)], sign, self.blocking), patience=patience)
        ages = await self.repeat(lambda: roll([self.keys.nodes], call, self.blocking), patience=patience)
        return {
            other.decode(errors="replace"): int(age) / 1000 for other, age in zip(ages[::2], ages[1::2], strict=True)
        }

    async def is_beating(self, *, node: str) -> bool:
        """Whether a node has beaten lately, asked of Redis: for one that is not on our list yet."""
        return bool(await self.call(lambda: self.commands.exists(self.keys.node(node))))

    async def sign_off(self, *, node: str) -> None:
        """Takes a node that ends off the list, and its inbox away."""

        await self.call(lambda: self.commands.zrem(self.keys.nodes, node))
        for key in (self.keys.node(node), self.keys.inbox(node), self.keys.uploads(node)):  # in slots of their own
            await self.forget(key)

    async def wake(self, *, node: str, about: str) -> None:
        """Wakes whoever on `node` listens to `about`."""
        await self._run("wake", [self.keys.inbox(node)], [about, _INBOX_MOST, _ms(_INBOX_TTL)])

    async def inbox(self, *, node: str, after: str, timeout: float) -> tuple[str, list[str]]:
        """Waits up to `timeout` seconds for wake-ups after entry ID `after`, and trims those before it.

        Answers the last ID seen and what the wake-ups are about.  Raises StoreUnavailable at once.
        """

        async def read() -> list[Any]:
            pipe = self.blocking.pipeline(transaction=False)
            pipe.xtrim(self.keys.inbox(node), minid=after, approximate=False)
            pipe.xread({self.keys.inbox(node): after}, count=1000, block=_ms(timeout))
            return list((await pipe.execute())[1])

        reply = await self.repeat(read, patience=0, blocks=timeout)
        if not reply:
            return after, []
        entries = reply[0][1]
        return entries[-1][0].decode(), [fields.get(b"about", b"").decode(errors="replace") for _, fields in entries]

    # -- what operators see ------------------------------------------------------------------------------

    async def report(self, *, node: str, transfers: Sequence[Progress]) -> None:
        """Replaces the node's report of the transfers whose uploads it holds."""
        flat = [part for progress in transfers for part in (progress.id, progress.dump())]
        await self._run("report", [self.keys.uploads(node)], [_ms(3 * self.settings.heartbeat), *flat])

    async def lives(self, *, tokens: Sequence[str]) -> dict[str, float]:
        """The seconds that each of the tokens has left; 0 for one that is gone."""

        left = await self._each([self.keys.token(token) for token in tokens], lambda pipe, key: pipe.pttl(key))
        return {token: max(0, ms) / 1000 for token, ms in zip(tokens, left, strict=True)}

    async def enrol(self, *, lives: Mapping[str, float]) -> list[str]:
        """Notes the seconds that tokens have left.  Answers some that should be over by now: ask for their `lives`."""
        flat = [part for token, left in lives.items() for part in (token, round(left * 1000))]
        over = await self._run("enrol", [self.keys.tokens], [_ms(_TOKENS_TTL), _OVER_MOST, _ms(_OVER_PAUSE), *flat])
        return [token.decode() for token in over]

    async def overview(self) -> Overview:
        """The cluster as its nodes report it.  Its cost is in nodes, not in transfers or tokens."""

        async def first() -> list[Any]:
            pipe = self.commands.pipeline(transaction=False)
            pipe.zrange(self.keys.nodes, 0, -1)
            pipe.zcard(self.keys.tokens)
            pipe.zrange(self.keys.tokens, 0, _LIVES_MOST - 1)
            return await pipe.execute()

        names, count, tokens = await self.call(first)
        nodes, tokens = [name.decode() for name in names], [token.decode() for token in tokens]

        async def second() -> list[Any]:
            pipe = self.commands.pipeline(transaction=False)
            for node in nodes:
                pipe.hgetall(self.keys.node(node))
                pipe.hgetall(self.keys.uploads(node))
            for token in tokens:
                pipe.pttl(self.keys.token(token))
                pipe.hget(self.keys.token(token), "uses")
            return await pipe.execute()

        results = iter(await self.call(second))
        reports, transfers = [], []
        for node in nodes:
            reports.append(NodeReport.load(node, _text(next(results))))
            transfers += [Progress.load(transfer_id, text) for transfer_id, text in _text(next(results)).items()]
        lives = [TokenLife(token, next(results) / 1000, int(next(results) or 0)) for token in tokens]
        alive = [life for life in lives if life.seconds > 0]
        return Overview.of(reports, transfers, alive, count - len(lives) + len(alive))

    async def check(self, *, node: str) -> None:
        """Raises StoreUnavailable unless Redis answers a write."""
        await self.wake(node=node, about="check")

    async def transfers(self) -> list[Progress]:
        """Every transfer; the rates are those that nodes report.  Scans the keyspace: for an operator's terminal."""
        found = await self._scan("transfer")
        hashes = await self._each(found, lambda pipe, key: pipe.hgetall(key))
        live = [
            self._transfer(token, name, _text(fields))
            for (token, name), fields in zip(map(_parts, found), hashes, strict=True)
            if fields
        ]
        acks = await self._each(
            [transfer.keys.acks for transfer in live], lambda pipe, key: pipe.xrevrange(key, count=1)
        )
        reported = {progress.id: progress.rate for progress in (await self.overview()).transfers}
        now = time.time()
        return by_urgency(
            Progress(
                id=transfer.id,
                token=transfer.token,
                name=transfer.name,
                state=transfer.state,
                uploader=transfer.uploader,
                downloader=transfer.downloader,
                length=transfer.length,
                delivered=_ack(ack[0]).position if ack else 0,
                rate=reported.get(transfer.id, 0.0),
                seconds=max(0, round(now - (transfer.joined or transfer.created))),
            )
            for transfer, ack in zip(live, acks, strict=True)
        )

    async def tokens(self, *, beginning: str = "") -> list[TokenLife]:
        """Every token (that begins so), the first to expire first.  Scans the keyspace, too."""
        found = await self._scan("token", beginning)
        lives = await self.lives(tokens=[token for token, _ in map(_parts, found)])
        uses = await self._each(found, lambda pipe, key: pipe.hget(key, "uses"))
        every = [
            TokenLife(token, left, int(used or 0)) for (token, left), used in zip(lives.items(), uses, strict=True)
        ]
        return sorted((life for life in every if life.seconds > 0), key=lambda life: life.seconds)

    async def _scan(self, kind: str, beginning: str = "") -> list[str]:
        """All keys of a kind, of tokens that begin so."""

        async def scan() -> list[str]:
            pattern = f"{self.keys.prefix}:{kind}:{{{beginning}*"
            return [key.decode() async for key in self.commands.scan_iter(match=pattern, count=1000)]

        return sorted(set(await self.call(scan)))  # a SCAN may answer a key twice

    async def _each(self, keys: Sequence[str], command: Callable[[Any, str], object]) -> list[Any]:
        """The answers to one command for each key, some thousands in a round trip."""
        answers: list[Any] = []
        for begin in range(0, len(keys), _BATCH):

            async def ask(batch: Sequence[str] = keys[begin : begin + _BATCH]) -> list[Any]:
                pipe = self.commands.pipeline(transaction=False)
                for key in batch:
                    command(pipe, key)
                return await pipe.execute()

            answers += await self.call(ask)
        return answers

    # -- how it is done ----------------------------------------------------------------------------------

    @property
    def _lease(self) -> int:
        """Milliseconds that a side's stream lives when it has been renewed: two looks, and a failure of Redis."""
        return _ms(2 * TOUCH + self.settings.transfer_patience)

    @property
    def _fields_most(self) -> int:
        """Fields that a token's hash may have; 0: any number."""
        return self.settings.token_names + _TOKEN_FIELDS if self.settings.token_names else 0

    def _use(self, *, counts: bool) -> list[int]:
        return [_ms(self.settings.token_use) if counts else 0, _ms(self.settings.token_max)]

    def _transfer(self, token: str, name: str, fields: Mapping[str, str]) -> Transfer:
        length = fields.get("length", "")
        return Transfer(
            token=token,
            name=name,
            id=fields["id"],
            keys=self.keys.of(token, name, fields["id"]),
            state=State(fields.get("state", State.WAITING)),
            uploader=fields.get("uploader", ""),
            downloader=fields.get("downloader", ""),
            length=int(length) if length else None,
            type=fields.get("type", ""),
            created=int(fields.get("created", 0)),
            joined=int(fields.get("joined", 0)),
        )

    async def _run(
        self, verb: str, keys: Sequence[str], arguments: Sequence[str | int], *, patience: float | None = None
    ) -> Any:
        script = self._scripts[verb]
        return await self.call(lambda: script(keys=keys, args=arguments), patience=patience)

    async def call(self, command: Callable[[], Awaitable[T]], *, patience: float | None = None) -> T:
        """Runs a command on one of the shared connections.  Raises StoreUnavailable."""
        patience = self.settings.redis_patience if patience is None else patience
        since = await self._turn(patience)
        try:
            return await self.repeat(command, patience=patience, since=since)
        finally:
            self._turns.release()

    async def _turn(self, patience: float) -> float:
        """Waits for one of the shared connections, for as long as Redis answers those before us.

        A crowd that gave up sooner would begin again together, and get nowhere: of 10,000 uploaders that left
        at once, half kept their names for minutes.  Answers since when `patience` counts, in the event loop's
        seconds.  Raises StoreUnavailable where Redis has answered nobody for `patience` seconds.
        """
        loop = asyncio.get_running_loop()
        begun = loop.time()
        while (left := max(begun, self._answered) + patience - loop.time()) > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._turns.acquire()
                    return max(begun, self._answered)
        raise StoreUnavailable

    async def repeat(
        self,
        command: Callable[[], Awaitable[T]],
        *,
        patience: float,
        blocks: float = 0,
        since: float | None = None,
    ) -> T:
        """Runs the command, and again where Redis failed in passing, for `patience` seconds from `since` or now.

        One attempt may take `COMMAND_TIMEOUT`, or what is left of the patience, beyond the seconds it
        `blocks` by itself.  Raises StoreUnavailable.
        """
        loop = asyncio.get_running_loop()
        begun, pause, full = loop.time() if since is None else since, 0.02, False
        while True:
            left = begun + patience - loop.time()
            sent = loop.time()
            try:
                async with asyncio.timeout(blocks + (min(COMMAND_TIMEOUT, left) if patience else COMMAND_TIMEOUT)):
                    answer = await command()
                self._answered = loop.time()
                if not blocks:
                    self.metrics.redis_seconds.observe(loop.time() - sent)
                return answer
            except (*PASSING, RedisError) as error:
                self.metrics.redis_errors.labels(type(error).__name__).inc()
                full = _is_out_of_memory(error) or (full and isinstance(error, TimeoutError))
                if not full and not isinstance(error, PASSING):
                    # Ours or the operator's to mend (no permission, wrong type, a bug), so it is said in the log.
                    log.error("Redis refused a command: %s: %s", type(error).__name__, error)
                    raise StoreUnavailable from error
                if loop.time() + pause >= begun + patience:
                    raise StoreUnavailable(Error.STORE_FULL if full else Error.STORE_DOWN) from error
            await asyncio.sleep(pause)
            pause = min(2 * pause, 0.5)


class RedisStream:
    """A transfer's stream through Redis; see `streams.Stream`.  `Store.stream` makes it."""

    def __init__(self, store: Store, keys: TransferKeys) -> None:
        self.written = chunk_id(0)
        self._store = store
        self._keys = keys
        self._patience = store.settings.transfer_patience

    async def append(self, chunks: Sequence[bytes | memoryview], *, end: int) -> Ack | None:
        entries, start = [], end - sum(map(len, chunks))
        for chunk in chunks:
            start += len(chunk)
            entries.append((chunk_id(start), {"d": chunk}))
        return await self._write(entries)

    async def finish(self, *, total: int) -> Ack | None:
        return await self._write([(end_id(total), {"end": Outcome.COMPLETE.value})])

    async def _write(self, entries: Sequence[tuple[str, dict[Any, Any]]]) -> Ack | None:
        async def write() -> list[Any]:
            # All or nothing: of several chunks a later one must not get in where an earlier one did not, for want
            # of memory.  A repeat would then take the gap for what it had written before.
            pipe = self._store.commands.pipeline(transaction=len(entries) > 1)
            for entry_id, fields in entries:
                pipe.xadd(self._keys.chunks, fields, id=entry_id, nomkstream=True)
            pipe.xrevrange(self._keys.acks, count=1)
            try:
                *written, acks = await pipe.execute(raise_on_error=False)
            except ExecAbortError as error:
                raise OutOfMemoryError(str(error)) from error  # nothing else keeps these from being carried out
            # An entry that is there already is a repeat of a write whose reply was lost; or an end marker stands
            # behind it, and then the acks say so too.
            return [*(_result(entry) for entry in written if not _is_refused_id(entry)), _result(acks)]

        *written, acks = await self._store.call(write, patience=self._patience)
        self.written = entries[-1][0]
        return None if None in written or not acks else _ack(acks[0])

    async def acks(self, *, after: str, timeout: float) -> Ack | None:
        async def read() -> Any:
            return await self._store.blocking.xread({self._keys.acks: after}, block=_ms(timeout))

        reply = await self._store.repeat(read, patience=self._patience, blocks=timeout)
        return _ack(reply[0][1][-1]) if reply else None

    async def read(self, *, position: int, acknowledge: bool, count: int, timeout: float) -> list[Entry]:
        """What is acknowledged is trimmed away, in the same round trip."""

        async def read() -> list[Any]:
            pipe = self._store.blocking.pipeline(transaction=False)
            if acknowledge:
                pipe.xtrim(self._keys.chunks, minid=trim_id(position), approximate=False)
                pipe.xadd(
                    self._keys.acks,
                    {"to": position},
                    id=chunk_id(position),
                    maxlen=1,
                    approximate=False,
                    nomkstream=True,
                )
            pipe.xread({self._keys.chunks: chunk_id(position)}, count=count, block=_ms(timeout))
            *acknowledged, entries = await pipe.execute(raise_on_error=False)
            for result in acknowledged:
                # A repeat, or an end marker stands there: the next entry, or touch(), will tell.  Without memory
                # for it, it is said again with the next read: what is in Redis must be read to make room.
                if not _is_refused_id(result) and not _is_out_of_memory(result):
                    _result(result)
            return list(_result(entries) or [])

        reply = await self._store.repeat(read, patience=self._patience, blocks=timeout)
        return [_entry(entry) for entry in reply[0][1]] if reply else []


def transfers_in(token_fields: Mapping[str, str]) -> list[tuple[str, str]]:
    """The names and ids of the live transfers that a token's fields list."""
    return [(field[9:], value) for field, value in token_fields.items() if field.startswith("transfer:")]


def _parts(key: str) -> tuple[str, str]:
    """The token and the name in a key."""
    token, _, rest = key.partition("{")[2].partition("}")
    return token, rest.removeprefix(":")


def _sources() -> dict[str, str]:
    """The scripts, by verb; those named here get the shared functions they use put before them."""
    folder = files("relay") / "lua"
    text = {item.name.removesuffix(".lua"): item.read_text() for item in folder.iterdir() if item.name.endswith(".lua")}
    shared = {
        "claim": ["_use", "_room"],
        "look": ["_use"],
        "want": ["_room"],
        "end": ["_last", "_mark"],
        "touch": ["_last"],
    }
    return {
        verb: "".join(text[name] for name in shared.get(verb, [])) + source
        for verb, source in text.items()
        if not verb.startswith("_")
    }


def _ms(seconds: float) -> int:
    """Whole milliseconds, never 0: a BLOCK of 0 waits for ever, a PEXPIRE of 0 deletes."""
    return max(1, round(seconds * 1000))


def _text(fields: Mapping[bytes, bytes]) -> dict[str, str]:
    return {key.decode(): value.decode() for key, value in fields.items()}


def _pairs(flat: Sequence[bytes]) -> dict[str, str]:
    """The fields of a hash as a script answers them."""
    return {flat[i].decode(): flat[i + 1].decode() for i in range(0, len(flat), 2)}


def _need_token(answer: Sequence[bytes]) -> None:
    if answer[0] == b"no_token":
        raise Problem(Error.UNKNOWN_TOKEN)


def _need_room(answer: bytes) -> None:
    if answer == b"crowded":
        raise Problem(Error.CROWDED)


def _result(value: Any) -> Any:
    """A pipeline's result, raised if it is an error."""
    if isinstance(value, Exception):
        raise value
    return value


def _is_refused_id(value: Any) -> bool:
    """Whether a stream has an entry with this ID, or a higher one, already."""
    return isinstance(value, ResponseError) and "equal or smaller" in str(value)


def _is_out_of_memory(value: Any) -> bool:
    """Whether Redis had no memory left for it; from a script, Redis 6.2 says so only in the error's text."""
    return isinstance(value, OutOfMemoryError) or (isinstance(value, ResponseError) and "OOM command" in str(value))


def _entry(raw: tuple[bytes, dict[bytes, bytes]]) -> Entry:
    entry_id, fields = raw
    if (outcome := fields.get(b"end")) is not None:
        return Entry(offset_of(entry_id), outcome=Outcome(outcome.decode()))
    return Entry(offset_of(entry_id), fields[b"d"])


def _ack(raw: tuple[bytes, dict[bytes, bytes]]) -> Ack:
    entry_id, fields = raw
    outcome = fields.get(b"end")
    return Ack(entry_id.decode(), offset_of(entry_id), Outcome(outcome.decode()) if outcome is not None else None)
