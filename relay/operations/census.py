"""What operators see of the cluster: the nodes' reports and the tokens, and on a terminal every single key.

No client depends on any of it.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from relay.access import ID_LENGTH
from relay.cluster.progress import Progress, Taken, by_urgency
from relay.operations.overview import NodeReport, Overview, TokenLife
from relay.states import State
from relay.store.commands import ms, text
from relay.store.offsets import offset_of
from relay.store.records import Transfer
from relay.store.store import Store

#: Seconds that the list of tokens outlives the last report.
_TOKENS_TTL = 3600.0
#: Maximum tokens that one report of one node checks, and the seconds for which no other node checks them.
_MAX_CHECKED, _CHECKED_FOR = 1000, 10.0
#: Maximum commands in one pipeline, if each of many keys needs one.
_BATCH = 2000
#: Maximum tokens on the status page.
_MAX_LIVES = 50


class Census:
    """The commands to Redis that serve operators, as typed methods like those of `Store`."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._keys = store.keys

    async def report(self, *, node: str, transfers: Sequence[Progress]) -> None:
        """Replace the node's report of the transfers whose uploads it holds."""
        await self._replace(self._keys.uploads(node), {progress.id: progress.dump() for progress in transfers})

    async def report_taken(self, *, node: str, taken: Mapping[str, Taken]) -> None:
        """Replace the node's report of the transfers whose downloads it holds, by id."""
        await self._replace(self._keys.downloads(node), {each: f"{by} {rate}" for each, (by, rate) in taken.items()})

    async def _replace(self, key: str, report: Mapping[str, str]) -> None:
        flat = [part for pair in report.items() for part in pair]
        await self._store.commands.run("report", [key], [ms(3 * self._store.commands.settings.heartbeat), *flat])

    async def lives(self, *, tokens: Sequence[str]) -> dict[str, float]:
        """Return the seconds that each of the tokens has left; 0 for one that has expired."""
        left = await self._each([self._keys.token(token) for token in tokens], lambda pipe, key: pipe.pttl(key))
        return {token: max(0, ms) / 1000 for token, ms in zip(tokens, left, strict=True)}

    async def enrol(self, *, lives: Mapping[str, float]) -> list[str]:
        """Record the seconds that tokens have left. Return some tokens that should have expired by now.

        The caller is to check the `lives` of those, and to record them with its next call.
        """
        flat = [part for token, left in lives.items() for part in (token, round(left * 1000))]
        over = await self._store.commands.run(
            "enrol", [self._keys.tokens], [ms(_TOKENS_TTL), _MAX_CHECKED, ms(_CHECKED_FOR), *flat]
        )
        return [token.decode(errors="replace") for token in over]

    async def overview(self) -> Overview:
        """Return the cluster as its nodes last reported it. The cost grows with nodes, not with transfers or tokens."""
        nodes = await self._ages()

        async def first() -> list[Any]:
            pipe = self._store.commands.redis.pipeline(transaction=False)
            pipe.zcard(self._keys.tokens)
            pipe.zrange(self._keys.tokens, 0, _MAX_LIVES - 1)
            return await pipe.execute()

        count, names = await self._store.commands.call(first)
        tokens = [name.decode(errors="replace") for name in names]

        async def second() -> list[Any]:
            pipe = self._store.commands.redis.pipeline(transaction=False)
            for node in nodes:
                pipe.hgetall(self._keys.node(node))
                pipe.hgetall(self._keys.uploads(node))
                pipe.hgetall(self._keys.downloads(node))
            for token in tokens:
                pipe.pttl(self._keys.token(token))
                pipe.hget(self._keys.token(token), "uses")
            return await pipe.execute()

        results = iter(await self._store.commands.call(second))
        reports, transfers, taken = [], [], dict[str, Taken]()
        for node, age in nodes.items():
            reports.append(NodeReport.load(node, text(next(results)), age=age))
            transfers += [_load(transfer_id, text) for transfer_id, text in text(next(results)).items()]
            taken |= {transfer_id: _taken(text) for transfer_id, text in text(next(results)).items()}
        lives = [TokenLife(_shown(token), next(results) / 1000, int(next(results) or 0)) for token in tokens]
        alive = [life for life in lives if life.seconds > 0]
        servers = await self._store.servers.facts()
        return Overview.of(reports, transfers, alive, count - len(lives) + len(alive), servers=servers, taken=taken)

    async def _ages(self) -> dict[str, float]:
        """Return the seconds since each known node's last heartbeat."""
        flat = await self._store.commands.run("ages", [self._keys.nodes], [])
        return {node.decode(errors="replace"): int(age) / 1000 for node, age in zip(flat[::2], flat[1::2], strict=True)}

    async def transfers(self) -> list[Progress]:
        """Return every transfer, with the rate that its node last reported, and how long it waits still.

        This scans the keyspace, so it is for an operator's terminal only.
        """
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
        reported = {progress.id: progress for progress in (await self.overview()).transfers}
        now = time.time()
        return by_urgency(
            Progress(
                id=transfer.id,
                token=_shown(transfer.token),
                name=transfer.name,
                state=transfer.state,
                uploader=transfer.uploader,
                downloader=transfer.downloader,
                length=transfer.length,
                delivered=_delivered(transfer, ack, reported.get(transfer.id)),
                rate=reported[transfer.id].rate if transfer.id in reported else 0.0,
                seconds=max(0, round(now - (transfer.joined or transfer.created))),
                left=reported[transfer.id].left if transfer.id in reported else None,
                leg=transfer.leg,
            )
            for transfer, ack in zip(live, acks, strict=True)
        )

    async def tokens(self, *, beginning: str = "") -> list[TokenLife]:
        """Return every token that begins with `beginning`, the first to expire first. This scans the keyspace, too."""
        found = await self._scan("token", beginning)
        lives = await self.lives(tokens=[token for token, _ in map(_parts, found)])
        uses = await self._each(found, lambda pipe, key: pipe.hget(key, "uses"))
        every = [
            TokenLife(token, left, int(used or 0)) for (token, left), used in zip(lives.items(), uses, strict=True)
        ]
        return sorted((life for life in every if life.seconds > 0), key=lambda life: life.seconds)

    async def _scan(self, kind: str, beginning: str = "") -> list[str]:
        """Return all keys of a kind whose tokens begin with `beginning`."""

        async def scan() -> list[str]:
            pattern = f"{self._keys.prefix}:{kind}:{{{beginning}*"
            return [
                key.decode(errors="replace")
                async for key in self._store.commands.redis.scan_iter(match=pattern, count=1000)
            ]

        return sorted(set(await self._store.commands.call(scan)))  # SCAN may return a key twice

    async def _each(self, keys: Sequence[str], command: Callable[[Any, str], object]) -> list[Any]:
        """Return the replies to one command for each key, with up to `_BATCH` commands in a round trip."""
        replies: list[Any] = []
        for begin in range(0, len(keys), _BATCH):

            async def ask(batch: Sequence[str] = keys[begin : begin + _BATCH]) -> list[Any]:
                pipe = self._store.commands.redis.pipeline(transaction=False)
                for key in batch:
                    command(pipe, key)
                return await pipe.execute()

            replies += await self._store.commands.call(ask)
        return replies


def _parts(key: str) -> tuple[str, str]:
    """Return the token and the name in a key. The name is empty in a token's own key."""
    token, _, rest = key.partition("{")[2].partition("}")
    return token, rest.removeprefix(":")


def _delivered(transfer: Transfer, ack: Sequence[Any], reported: Progress | None) -> int:
    """Return how far a transfer is: as its nodes reported, which know what the client took; else by the last ack."""
    if reported is not None and reported.state is State.STREAMING and reported.leg == transfer.leg:
        return reported.delivered
    return max(transfer.position, offset_of(ack[0][0]) if ack else 0)


def _taken(text: str) -> Taken:
    position, rate = text.split()
    return Taken(int(position), int(rate))


def _load(transfer_id: str, text: str) -> Progress:
    progress = Progress.load(transfer_id, text)
    return replace(progress, token=_shown(progress.token))


def _shown(token: str) -> str:
    """Return what may be shown of a token in a key. During an upgrade, nodes of version 0.1 have whole tokens there."""
    return token[:ID_LENGTH]
