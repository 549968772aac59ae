"""Run transfers by clients that come back, while nodes are killed, connections are cut, and Redis fails over.

    python -m tests.resume.proof --transfers 1000 --seed 7

Uploaders speak resumable uploads, downloaders come back with a range. At the end, the proof checks that

- every file has arrived whole, byte for byte;
- every uploader was told so, and no uploader was told so before it was true;
- no transfer ended early, except by a failover that has lost a part of it;
- no key is left except results, tokens and what nodes say about themselves, and each has a TTL;
- no node has logged a traceback.

The seed determines the sizes and manners of the clients, and which nodes and connections fail. How far each transfer
has come by then depends on the machine.
"""

import argparse
import contextlib
import random
import re
import secrets
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import redis

from relay.states import Outcome
from tests.resume.pairs import Cuttable, Pair, Plan
from tests.support.cluster import Cluster, NodeProcess, first_traceback
from tests.support.failover import Replicated, replicated
from tests.support.redis import servers
from tests.support.wait import wait_until

NODES = 3
#: How many transfers run at a time.
AT_A_TIME = 12
SETTINGS = {
    # All clients share one address.
    "token_rate": "",
    "failure_rate": "",
    "heartbeat": 1,
    "node_death": 4,
    "token_names": 0,
}
#: Seconds after which the streams of a node that was killed have expired.
LEASE = 60.0
_LEGS = re.compile(r"ended transfer=\w+ outcome=(\w+) bytes=\d+ (?:legs=(\d+) )?")


@dataclass(frozen=True)
class Pace:
    """Seconds between two faults of a kind."""

    kill: float = 10.0
    cut: float = 1.0
    redis: float = 7.0


@dataclass
class Report:
    """What happened, and what went wrong."""

    did: Counter[str] = field(default_factory=Counter)
    found: list[str] = field(default_factory=list)

    def show(self) -> None:
        for what, count in sorted(self.did.items()):
            print(f"{count:>6} {what}")
        for each in self.found:
            print("WRONG:", each)


class Balancer(Sequence[str]):
    """The addresses of all nodes, of which a client gets a random one each time."""

    def __init__(self, nodes: list[NodeProcess], dice: random.Random) -> None:
        self._nodes = nodes
        self._dice = dice

    def __len__(self) -> int:
        return len(self._nodes)

    def __getitem__(self, index: object) -> str:
        return self._dice.choice(self._nodes).url


class Proof:
    """Transfers and faults on three nodes over a Redis with a replica and a sentinel."""

    def __init__(self, store: Replicated, *, transfers: int, seed: int, pace: Pace, is_patient: bool) -> None:
        self.report = Report()
        self._store = store
        self._count = transfers
        self._seed = seed
        self._pace = pace
        #: Whether it waits until the streams of dead nodes have expired, or is content with their TTL.
        self._is_patient = is_patient
        self._prefix = f"proof-{secrets.token_hex(4)}"
        self._started = 0
        nodes = [self._node() for _ in range(NODES)]
        self._cluster = Cluster(nodes, None, self._prefix)
        self._balancer = Balancer(self._cluster.nodes, random.Random(f"{seed}/balancer"))
        self._connections = Cuttable()
        self._logs: list[str] = []
        self._done = 0
        self._is_over = threading.Event()

    def run(self) -> None:
        """Run all transfers, with the faults beside them."""
        token = self._cluster.token()
        faults = [
            threading.Thread(target=self._cut_clients),
            threading.Thread(target=self._kill_nodes),
            threading.Thread(target=self._trouble_redis),
        ]
        for thread in faults:
            thread.start()
        try:
            with ThreadPoolExecutor(AT_A_TIME) as pool:
                for pair in pool.map(lambda number: self._transfer(token, number), range(self._count)):
                    self.report.found += pair.found
                    self.report.did += pair.did
        finally:
            self._is_over.set()
            for thread in faults:
                thread.join()

    def _transfer(self, token: str, number: int) -> Pair:
        plan = Plan.of(random.Random(f"{self._seed}/{number}"))
        pair = Pair(self._balancer, f"/{token}/{number}", plan, self._connections)
        try:
            pair.run()
        except Exception as error:
            pair.found.append(f"{pair.path}: {error!r}")
        self._done += 1
        return pair

    # -- faults ----------------------------------------------------------------------------------------------

    def _every(self, seconds: float, kind: str) -> Iterator[random.Random]:
        """Yield dice in this interval, more or less, until all transfers are over."""
        dice = random.Random(f"{self._seed}/{kind}")
        while not self._is_over.wait(seconds * dice.uniform(0.7, 1.3)):
            yield dice

    def _cut_clients(self) -> None:
        for dice in self._every(self._pace.cut, "cut"):
            how = dice.choice(("FIN", "RST"))
            self.report.did[f"client connections cut by {how}"] += self._connections.cut(dice, is_reset=how == "RST")

    def _kill_nodes(self) -> None:
        for dice in self._every(self._pace.kill, "kill"):
            index = dice.randrange(NODES)
            node, self._cluster.nodes[index] = self._cluster.nodes[index], self._node()
            node.kill()
            self._logs.append(node.log())
            self.report.did["nodes killed"] += 1
            self._cluster.nodes[index].wait_ready()

    def _trouble_redis(self) -> None:
        """Cut connections to Redis, one or all of them, and let it fail over once."""
        for dice in self._every(self._pace.redis, "redis"):
            if 2 * self._done > self._count and not self.report.did["failovers of Redis"]:
                self._store.fail_over()
                self.report.did["failovers of Redis"] += 1
                continue
            with contextlib.suppress(redis.RedisError), self._store.master().client() as client:
                if dice.random() < 0.5:
                    client.client_kill_filter(_type="normal", skipme=True)
                    self.report.did["times all Redis connections cut"] += 1
                else:
                    victim = dice.choice(client.client_list(_type="normal"))
                    client.client_kill_filter(_id=victim["id"], skipme=True)
                    self.report.did["single Redis connections cut"] += 1

    def _node(self) -> NodeProcess:
        self._started += 1
        return NodeProcess(f"proof{self._started}", self._store.url, SETTINGS | {"prefix": self._prefix})

    # -- the end ---------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Record what should not be left."""
        if not self.report.did["failovers of Redis"]:
            self.report.found.append("Redis was not failed over")
        for node in self._cluster.nodes:
            node.wait_ready()
        self._cluster.redis = self._store.master().client()
        self._check_keys()
        self._cluster.redis.close()

    def _check_keys(self) -> None:
        store = self._cluster.redis
        assert store is not None
        with contextlib.suppress(AssertionError):
            wait_until(lambda: not list(self._cluster.keys("transfer")), "no name to be held", timeout=10)
        self.report.found += [f"{key} is left: {store.hgetall(key)}" for key in self._cluster.keys("transfer")]
        for key in store.scan_iter(f"{self._prefix}:*", count=1000):
            if (left := int(store.ttl(key))) == -1:
                self.report.found.append(f"{key.decode()} has no TTL")
            elif key.split(b":")[1] in (b"chunks", b"acks") and left > LEASE:
                self.report.found.append(f"{key.decode()} has a TTL of {left} s")
        self.report.did["streams of dead nodes that had to expire"] = len(self._cluster.left_over())
        if not self._is_patient:
            return
        with contextlib.suppress(AssertionError):
            wait_until(lambda: not self._cluster.left_over(), "no stream to be left", timeout=LEASE + 5)
        self.report.found += [f"{key} is left" for key in self._cluster.left_over()]

    def stop(self) -> None:
        self._cluster.stop()
        log = "\n".join([*self._logs, self._cluster.logs()])
        self.report.found += [found] if (found := first_traceback(log)) else []
        self.report.found += [line for line in log.splitlines() if "a bug" in line]
        for outcome, legs in _LEGS.findall(log):
            self.report.did[f"ended as {outcome}"] += 1
            if outcome == "complete":
                self.report.did[f"complete in {int(legs or 1):2} legs"] += 1
            elif outcome not in (Outcome.CANCELLED, Outcome.STORE_LOST):
                self.report.found.append(f"a transfer ended as {outcome}")
        if self.report.did["ended as store_lost"] > AT_A_TIME:
            self.report.found.append("more transfers were lost than the failover may have cost")


def prove(*, transfers: int, seed: int, pace: Pace, is_patient: bool = True) -> list[str]:
    """Run the proof, print what happened, and return what went wrong."""
    print(f"proof: {transfers} transfers, seed {seed}", flush=True)
    available = servers()
    begun = time.monotonic()
    with replicated(available[max(available)]) as store:
        it = Proof(store, transfers=transfers, seed=seed, pace=pace, is_patient=is_patient)
        try:
            it.run()
            it.report.did["seconds of transfers"] = round(time.monotonic() - begun)
            it.check()
        finally:
            it.stop()
            it.report.did["seconds altogether"] = round(time.monotonic() - begun)
            it.report.show()
    return it.report.found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--transfers", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    parser.add_argument("--kill", type=float, default=Pace.kill, help="seconds between two killed nodes")
    arguments = parser.parse_args()
    found = prove(transfers=arguments.transfers, seed=arguments.seed, pace=Pace(kill=arguments.kill))
    raise SystemExit(1 if found else 0)


if __name__ == "__main__":
    main()
