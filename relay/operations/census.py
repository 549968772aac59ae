"""What operators see of the cluster: the nodes' reports, the tokens, and for a terminal every single key.

Nothing that a client does hangs on any of it.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from relay.cluster.progress import Progress, by_urgency
from relay.operations.overview import NodeReport, Overview, TokenLife
from relay.store.commands import ms, text
from relay.store.offsets import offset_of
from relay.store.records import Transfer
from relay.store.store import Store

_TOKENS_TTL = 3600.0
#: Tokens that one beat of one node asks about, and for how many seconds no other node is asked about them.
_OVER_MOST, _OVER_PAUSE = 1000, 10.0
#: Commands that are sent together, where there is one for each of many keys.
_BATCH = 2000
#: Tokens on the status page.
_LIVES_MOST = 50


class Census:
    """Verbs like `Store`'s, for operators."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._keys = store.keys

    async def report(self, *, node: str, transfers: Sequence[Progress]) -> None:
        """Replaces the node's report of the transfers whose uploads it holds."""
        flat = [part for progress in transfers for part in (progress.id, progress.dump())]
        await self._store.commands.run(
            "report", [self._keys.uploads(node)], [ms(3 * self._store.commands.settings.heartbeat), *flat]
        )

    async def lives(self, *, tokens: Sequence[str]) -> dict[str, float]:
        """The seconds that each of the tokens has left; 0 for one that is gone."""

        left = await self._each([self._keys.token(token) for token in tokens], lambda pipe, key: pipe.pttl(key))
        return {token: max(0, ms) / 1000 for token, ms in zip(tokens, left, strict=True)}

    async def enrol(self, *, lives: Mapping[str, float]) -> list[str]:
        """Notes the seconds that tokens have left.  Answers some that should be over by now: ask for their `lives`."""
        flat = [part for token, left in lives.items() for part in (token, round(left * 1000))]
        over = await self._store.commands.run(
            "enrol", [self._keys.tokens], [ms(_TOKENS_TTL), _OVER_MOST, ms(_OVER_PAUSE), *flat]
        )
        return [token.decode() for token in over]

    async def overview(self) -> Overview:
        """The cluster as its nodes report it.  Its cost is in nodes, not in transfers or tokens."""

        async def first() -> list[Any]:
            pipe = self._store.commands.redis.pipeline(transaction=False)
            pipe.zrange(self._keys.nodes, 0, -1)
            pipe.zcard(self._keys.tokens)
            pipe.zrange(self._keys.tokens, 0, _LIVES_MOST - 1)
            return await pipe.execute()

        names, count, tokens = await self._store.commands.call(first)
        nodes, tokens = [name.decode() for name in names], [token.decode() for token in tokens]

        async def second() -> list[Any]:
            pipe = self._store.commands.redis.pipeline(transaction=False)
            for node in nodes:
                pipe.hgetall(self._keys.node(node))
                pipe.hgetall(self._keys.uploads(node))
            for token in tokens:
                pipe.pttl(self._keys.token(token))
                pipe.hget(self._keys.token(token), "uses")
            return await pipe.execute()

        results = iter(await self._store.commands.call(second))
        reports, transfers = [], []
        for node in nodes:
            reports.append(NodeReport.load(node, text(next(results))))
            transfers += [Progress.load(transfer_id, text) for transfer_id, text in text(next(results)).items()]
        lives = [TokenLife(token, next(results) / 1000, int(next(results) or 0)) for token in tokens]
        alive = [life for life in lives if life.seconds > 0]
        return Overview.of(reports, transfers, alive, count - len(lives) + len(alive))

    async def transfers(self) -> list[Progress]:
        """Every transfer; the rates are those that nodes report.  Scans the keyspace: for an operator's terminal."""
        found = await self._scan("transfer")
        hashes = await self._each(found, lambda pipe, key: pipe.hgetall(key))
        live = [
            Transfer.load(self._keys, token, name, text(fields))
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
                delivered=offset_of(ack[0][0]) if ack else 0,
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
            pattern = f"{self._keys.prefix}:{kind}:{{{beginning}*"
            return [key.decode() async for key in self._store.commands.redis.scan_iter(match=pattern, count=1000)]

        return sorted(set(await self._store.commands.call(scan)))  # a SCAN may answer a key twice

    async def _each(self, keys: Sequence[str], command: Callable[[Any, str], object]) -> list[Any]:
        """The answers to one command for each key, some thousands in a round trip."""
        answers: list[Any] = []
        for begin in range(0, len(keys), _BATCH):

            async def ask(batch: Sequence[str] = keys[begin : begin + _BATCH]) -> list[Any]:
                pipe = self._store.commands.redis.pipeline(transaction=False)
                for key in batch:
                    command(pipe, key)
                return await pipe.execute()

            answers += await self._store.commands.call(ask)
        return answers


def _parts(key: str) -> tuple[str, str]:
    """The token and the name in a key."""
    token, _, rest = key.partition("{")[2].partition("}")
    return token, rest.removeprefix(":")
