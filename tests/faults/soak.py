"""Run random transfers and random faults on three real nodes over a real Redis, for a chosen time.

    python -m tests.faults.soak --seconds 120 --seed 7

Every client records what it was told. At the end, the soak checks that

- what arrived is a prefix of what was sent;
- an uploader was told 200 if and only if everything arrived;
- every name is free;
- no key is left except streams that expire within a minute;
- the node that was never killed holds no more descriptors than at the beginning, and little more memory.
"""

import argparse
import asyncio
import contextlib
import random
import secrets
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial

import httpx
import psutil

from tests.support.cluster import Cluster, NodeProcess, first_traceback
from tests.support.loose import Manner, Told, get, put
from tests.support.redis import RedisServer, servers
from tests.support.wait import wait_until

KIB = 1024
#: Low limits make much happen. They are high enough that a busy machine keeps them.
LIMITS = {
    # All clients share one address, and they use revoked tokens more often than the failure rate allows.
    "token_rate": "",
    "failure_rate": "",
    "upload_wait": 8,
    "stall": 5,
    "download_wait": 4,
}
NODES, PAIRS, TOKENS = 3, 12, 4
#: Possible sizes of an upload, in bytes.
SIZES = (0, 1, 1000, 70 * KIB, 300 * KIB, 3 * KIB * KIB, 8 * KIB * KIB)
#: Range of the pause between two faults, and of the time for which a node is stopped, in seconds. A node that is
#: stopped for long is taken for dead.
FAULT_PAUSE, STOPPED = (0.2, 2.5), (0.3, 9.0)
#: Maximum time in which a client must get its response, in seconds. After that, the relay has forgotten it.
FORGOTTEN = 90
#: Statuses that clients may get; None means that there was no response.
KNOWN = {None, 200, 401, 404, 408, 409, 410, 424, 502, 503, 504}
#: Maximum TTL of a stream that no node deletes, in seconds, and maximum growth of the surviving node, in bytes.
STREAM_TTL, MORE_MEMORY = 60, 64 * KIB * KIB


@dataclass(eq=False)
class Pair:
    """An upload and its download."""

    path: str
    content: bytes
    begun: float
    #: Whether the download's node failed meanwhile. If it had already handed over all bytes, they may arrive although
    #: no node is left that could tell the uploader.
    is_unknowable: bool = False
    up: Told = field(default_factory=Told)
    down: Told = field(default_factory=Told)

    @property
    def is_whole(self) -> bool:
        """Whether the download looks complete to its client."""
        return self.down.status == 200 and self.down.is_whole

    def is_told_less(self) -> bool:
        """Return whether everything arrived although the uploader was told that it did not."""
        return self.is_whole and self.up.status not in (200, None)

    def faults(self) -> list[str]:
        """Return a line for each thing that went wrong."""
        found = []
        if self.up.status not in KNOWN or self.down.status not in KNOWN:
            found.append("an unknown status")
        if self.down.status == 200 and not self.content.startswith(self.down.body):
            found.append("what arrived is not what was sent")
        if self.is_whole and len(self.down.body) != len(self.content):
            found.append("a part looked whole")
        if self.up.status == 200 and not self.is_whole and len(self.down.body) < len(self.content):
            found.append("a 200 for what did not arrive")
        if self.is_told_less() and not self.is_unknowable:
            found.append("an error for what arrived")
        return [f"{self.path}: {each}: {self.up.status} {self.down.status} {len(self.down.body)}" for each in found]


class Soak:
    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.did: Counter[str] = Counter()
        self.found: list[str] = []
        available = servers()
        self.server = RedisServer(available[max(available)])
        self.prefix = f"soak-{secrets.token_hex(4)}"
        self.started = 0
        self.cluster = Cluster([self._node() for _ in range(NODES)], self.server.client(), self.prefix)
        self.dead_logs: list[str] = []
        self.tokens = [self.cluster.token() for _ in range(TOKENS)]
        self.live: dict[Pair, tuple[NodeProcess, NodeProcess]] = {}
        self.stopped: set[NodeProcess] = set()
        self.paths: set[str] = set()

    def _node(self) -> NodeProcess:
        self.started += 1
        return NodeProcess(f"soak{self.started}", self.server.url, LIMITS | {"prefix": self.prefix})

    @property
    def survivor(self) -> NodeProcess:
        """The one node that is never killed. It is stopped now and then like the others."""
        return self.cluster[0]

    def holds(self) -> tuple[int, int]:
        """Return the survivor's number of descriptors, without its connections to Redis, and its memory in bytes.

        Connections to Redis do not count because they are kept for reuse.
        """
        process = psutil.Process(self.survivor.process.pid)
        to_redis = [c for c in process.net_connections("tcp") if c.raddr and c.raddr.port == self.server.port]
        return process.num_fds() - len(to_redis), self.survivor.rss()

    async def run(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        clients = [asyncio.create_task(self._transfer_until(end)) for _ in range(PAIRS)]
        faults = asyncio.create_task(self._fail_until(end))
        await asyncio.gather(faults, *clients)

    # -- transfers -------------------------------------------------------------------------------------------

    async def _transfer_until(self, end: float) -> None:
        while time.monotonic() < end:
            size = self.dice.choice(SIZES)
            path = f"/{self.dice.choice(self.tokens)}/{secrets.token_hex(4)}"
            self.paths.add(path)
            pair = Pair(path, self.dice.randbytes(size), time.monotonic())
            up, down = (self.dice.choice(self.cluster.nodes) for _ in range(2))
            self.live[pair] = (up, down)
            is_unmet = self.dice.random() < 0.1
            try:
                async with asyncio.timeout(FORGOTTEN):
                    pair.up, pair.down = await asyncio.gather(
                        self._put(pair, up), self._get(pair, down, is_unmet=is_unmet)
                    )
            except TimeoutError:
                self.found.append(f"{path}: no response within {FORGOTTEN} s")
            del self.live[pair]
            self.found += pair.faults()
            self.did["whole, but too late for the uploader to be told"] += pair.is_told_less() and pair.is_unknowable
            self.did[f"upload {pair.up.status or ('left' if pair.up.has_left else 'cut off')}"] += 1
            whole = "whole" if pair.down.is_whole else "left" if pair.down.has_left else "cut off"
            self.did[f"download {pair.down.status} {whole}"] += 1

    async def _put(self, pair: Pair, node: NodeProcess) -> Told:
        await asyncio.sleep(self.dice.uniform(0, 0.3))
        manner = Manner.of(self.dice, len(pair.content))
        return await put(node.port, pair.path, pair.content, manner, is_chunked=self.dice.random() < 0.5)

    async def _get(self, pair: Pair, node: NodeProcess, *, is_unmet: bool) -> Told:
        await asyncio.sleep(self.dice.uniform(0, 0.3))
        if is_unmet:
            return Told()
        return await get(node.port, pair.path, Manner.of(self.dice, len(pair.content)))

    # -- faults ----------------------------------------------------------------------------------------------

    async def _fail_until(self, end: float) -> None:
        ways: list[Callable[[], Awaitable[None]]] = [
            self._kill_a_node,
            self._stop_a_node,
            self._cut_redis_connections,
            self._cancel,
            self._cancel,
            self._revoke,
        ]
        while time.monotonic() < end:
            await asyncio.sleep(self.dice.uniform(*FAULT_PAUSE))
            way = self.dice.choice(ways)
            self.did[way.__name__.strip("_").replace("_", " ")] += 1
            await way()

    def _doubt(self, node: NodeProcess) -> None:
        for pair, (_, down) in self.live.items():
            pair.is_unknowable |= down is node

    async def _delete(self, path: str) -> None:
        """Send a DELETE for a transfer, or for a token, which ends all its transfers."""
        async with httpx.AsyncClient(timeout=20) as client:
            with contextlib.suppress(httpx.TransportError):
                await client.delete(self.dice.choice(self.cluster.nodes).url + path)

    async def _kill_a_node(self) -> None:
        index = self.dice.randrange(1, NODES)
        node = self.cluster.nodes[index]
        self._doubt(node)
        node.kill()
        self.dead_logs.append(node.log())
        self.cluster.nodes[index] = self._node()
        await asyncio.to_thread(self.cluster.nodes[index].wait_ready)

    async def _stop_a_node(self) -> None:
        node = self.dice.choice(self.cluster.nodes)
        node.process.send_signal(signal.SIGSTOP)
        self._doubt(node)
        await asyncio.sleep(self.dice.uniform(*STOPPED))
        self._doubt(node)
        node.process.send_signal(signal.SIGCONT)

    async def _cut_redis_connections(self) -> None:
        with self.server.client() as client:
            client.client_kill_filter(_type="normal", skipme=True)

    async def _cancel(self) -> None:
        if self.live:
            await self._delete(self.dice.choice(list(self.live)).path)

    async def _revoke(self) -> None:
        index = self.dice.randrange(TOKENS)
        token, self.tokens[index] = self.tokens[index], await asyncio.to_thread(self._token)
        await self._delete("/" + token)

    def _token(self) -> str:
        """Return a new token as soon as a node grants one."""
        return wait_until(self._ask_for_token, "a token", timeout=60)

    def _ask_for_token(self) -> str:
        with contextlib.suppress(httpx.TransportError):
            answer = httpx.post(self.dice.choice(self.cluster.nodes).url + "/token", timeout=20)
            if answer.status_code == httpx.codes.OK:
                return answer.text.strip()
        return ""

    # -- the end ---------------------------------------------------------------------------------------------

    def check(self, before: tuple[int, int]) -> None:
        """Record in `found` everything that should not be left at the end."""
        for node in self.cluster.nodes:
            node.wait_ready()
        with contextlib.suppress(AssertionError):  # every client is gone, so each living node gives up its names
            wait_until(lambda: not self._held(), "no name to be held", timeout=10)
        self.found += [f"{key} is held" for key in self._held()]
        with httpx.Client(base_url=self.survivor.url, timeout=30) as client:
            for path in self.paths:  # asking for a name also removes the claim of a dead node
                # A node killed a moment ago counts as alive for some seconds, and a download that joins it is cut off.
                try:
                    wait_until(partial(_is_free, client, path), "it to be free", timeout=10)
                except AssertionError:
                    self.found.append(f"{path} is not free")
        store = self.server.client()
        self.found += [f"{key} is left over" for key in self.cluster.keys("transfer")]
        for key in store.scan_iter(f"{self.prefix}:*", count=1000):
            left = int(store.ttl(key))
            if left == -1 or (left > STREAM_TTL and key.split(b":")[1] in (b"chunks", b"acks")):
                self.found.append(f"{key.decode()} has a TTL of {left} s")
        with contextlib.suppress(AssertionError):
            wait_until(lambda: self.holds()[0] <= before[0], "descriptors to be closed", timeout=10)
        descriptors, memory = self.holds()
        self.did["MiB more in memory"] = (memory - before[1]) // KIB**2
        if descriptors > before[0]:
            self.found.append(f"{descriptors} descriptors are open, {before[0]} were")
        if memory > before[1] + MORE_MEMORY:
            self.found.append(f"{memory} bytes are in memory, {before[1]} were")
        logs = "\n".join([*self.dead_logs, self.cluster.logs()])
        self.found += [line for line in logs.splitlines() if "a bug" in line]
        self.found += [found] if (found := first_traceback(logs)) else []

    def _held(self) -> list[str]:
        """Return the keys of the transfers whose uploader's node lives."""
        living = {node.id.encode() for node in self.cluster.nodes}
        store = self.server.client()
        return [key for key in self.cluster.keys("transfer") if store.hget(key, "uploader") in living]

    def stop(self) -> None:
        self.cluster.stop()
        self.server.stop()


def _is_free(client: httpx.Client, path: str) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return client.get(path + "?wait=0").status_code in (401, 404)
    return False


def soak(*, seconds: float, seed: int) -> list[str]:
    """Run a soak, print what happened, and return what went wrong."""
    print(f"soak: {seconds:g} seconds, seed {seed}")
    it = Soak(seed)
    try:
        before = it.holds()
        asyncio.run(it.run(seconds))
        it.check(before)
    finally:
        it.stop()
    for what, count in sorted(it.did.items()):
        print(f"{count:>6} {what}")
    for each in it.found:
        print("WRONG:", each)
    return it.found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    arguments = parser.parse_args()
    raise SystemExit(1 if soak(seconds=arguments.seconds, seed=arguments.seed) else 0)


if __name__ == "__main__":
    main()
