"""Kill `relay send` or `relay receive` with SIGKILL at random moments, and run them again.

    python -m tests.client.kills --times 100 --seed 7

In each round a file or a directory is sent to a receiver on another node, and one of the two commands is killed. Then
the proof checks that

- nothing is under the final name, or all that was sent;
- the other command ends by itself, and says why in one line, with an exit status that its page names;
- the receiver, run again with the same link, ends with all that was sent, or refuses in one line;
- after a refusal, a new sender and a new receiver end with all that was sent;
- no command prints a traceback, and no transfer leaves a key.

The seed determines what is sent and how fast, and which command is killed after how long. How far a command has come by
then depends on the machine.
"""

import argparse
import contextlib
import filecmp
import random
import shutil
import signal
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.client.commands import Command, receive, send, through
from tests.support.cluster import Cluster, over_redis
from tests.support.proxy import Proxy
from tests.support.redis import RedisServer, newest

#: The exit statuses of a command that did not succeed, and was not misused.
_REFUSALS = {1, 3, 4, 5}
#: Maximum seconds from the start of a command to its end by SIGKILL.
_LATEST = 2.0


class Round:
    """One transfer whose sender or receiver is killed, and what comes after."""

    def __init__(self, cluster: Cluster, folder: Path, dice: random.Random) -> None:
        self._cluster = cluster
        self._dice = dice
        self._inbox = folder / "inbox"
        self._inbox.mkdir()
        self._source = folder / "sent"
        self._make()
        self.did = Counter[str]()
        #: What went wrong.
        self.found: list[str] = []

    def run(self) -> None:
        whose = self._dice.choice(("send", "receive"))
        with contextlib.closing(Proxy(self._cluster[1].port)) as slow:
            slow.rate = self._dice.choice((5, 20, 100)) * 1_000_000
            self._first(whose, slow)
        self._check(f"after the kill of {whose}")
        if self._final.exists():
            self.did["whole after the first or second run"] += 1
            return
        self._afresh()

    def _make(self) -> None:
        """Make a file, or a directory, of a size that takes about a second."""
        size = self._dice.choice((0, 1, 300_000, 5_000_000, 20_000_000, 20_000_000))
        if self._dice.random() < 0.7:
            self._source.write_bytes(self._dice.randbytes(size))
            return
        self._source.mkdir()
        for number in range(50):
            (self._source / str(number)).write_bytes(self._dice.randbytes(self._dice.randrange(3000)))
        (self._source / "large").write_bytes(self._dice.randbytes(size))

    @property
    def _final(self) -> Path:
        return self._inbox / "sent"

    def _first(self, whose: str, slow: Proxy) -> None:
        """Run both commands, and kill one of them. Run a receiver that was killed again."""
        delay = self._dice.uniform(0, _LATEST)
        with send(self._cluster[0].url, self._source, "--give-up", "5") as sender:
            if whose == "send" and self._dice.random() < 0.2:  # before a receiver comes
                self._kill(sender, delay / 2)
                return
            link = through(slow.port, sender.address())
            with receive("--wait", "5", "--give-up", "5", link, cwd=self._inbox) as receiver:
                self._kill(sender if whose == "send" else receiver, delay)
                if whose == "send":
                    self._end(receiver, "the receiver of a killed send")
                    return
            self._check("after the kill")
            slow.rate = 0
            self._again(link)
            self._end(sender, "the sender of a killed receive")

    def _kill(self, command: Command, delay: float) -> None:
        """Kill a command that was just started, after some seconds."""
        time.sleep(delay)
        command.process.kill()
        killed = command.process.wait() == -signal.SIGKILL
        self.did["killed" if killed else "over before the kill"] += 1

    def _again(self, link: str) -> None:
        """Run the receiver again."""
        was_there = self._final.exists()
        with receive("--wait", "1", "--give-up", "5", link, cwd=self._inbox) as receiver:
            status = self._end(receiver, "the second receive")
        if "are here already" in receiver.said:
            self.did["second receives that had a part"] += 1
        if status and was_there and "exists already" not in receiver.said and status != 1:
            self.found.append(f"the second receive ended with {status} although all is there: {receiver.said}")

    def _afresh(self) -> None:
        """Send and receive once more. That must succeed."""
        with (
            send(self._cluster[1].url, self._source) as sender,
            receive(sender.address(), cwd=self._inbox) as receiver,
        ):
            if receiver.finish() or sender.finish():
                self.found.append(f"the last run failed: {sender.said} {receiver.said}")
        self.did["whole after a new send"] += 1
        self._check("after a new send")
        if not self._final.exists():
            self.found.append("nothing is there after a new send")

    def _end(self, command: Command, which: str) -> int:
        """Wait until a command ends by itself. Return its exit status."""
        try:
            status = command.finish(60)
        except Exception as error:
            self.found.append(f"{which}: {error!r}")
            return -1
        last = command.said.splitlines()[-1:] or [""]
        if status and (status not in _REFUSALS or not last[0].startswith("relay: ")):
            self.found.append(f"{which} ended with {status}: {command.said}")
        self.did[f"{which} ended with {status}"] += 1
        return status

    def _check(self, when: str) -> None:
        """Record if something else than all that was sent is under the final name."""
        if not self._final.exists():
            return
        if self._source.is_dir():
            names = sorted(path.name for path in self._source.iterdir())
            is_same = sorted(path.name for path in self._final.iterdir()) == names and all(
                filecmp.cmp(self._source / name, self._final / name, shallow=False) for name in names
            )
        else:
            is_same = filecmp.cmp(self._source, self._final, shallow=False)
        if not is_same:
            self.found.append(f"something else than what was sent has the final name, {when}")


def prove(*, times: int, seed: int, redis_server: RedisServer) -> list[str]:
    """Run the rounds, print what happened, and return what went wrong."""
    print(f"kills: {times} rounds, seed {seed}", flush=True)
    did, found, begun = Counter[str](), list[str](), time.monotonic()
    with over_redis(redis_server, "ab", upload_wait=15, resume_wait=2, rejoin_wait=2, token_rate="") as cluster:
        for number in range(times):
            folder = Path(tempfile.mkdtemp(prefix="relay-kills-"))
            it = Round(cluster, folder, random.Random(f"{seed}/{number}"))
            try:
                it.run()
            finally:
                shutil.rmtree(folder, ignore_errors=True)
            did += it.did
            found += [f"round {number}: {each}" for each in it.found]
        cluster.wait_clean(330)
    did["seconds"] = round(time.monotonic() - begun)
    for what, count in sorted(did.items()):
        print(f"{count:>6} {what}")
    for each in found:
        print("WRONG:", each)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--times", type=int, default=100)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    arguments = parser.parse_args()
    with RedisServer(newest("nothing was proved")) as server:
        found = prove(times=arguments.times, seed=arguments.seed, redis_server=server)
    raise SystemExit(1 if found else 0)


if __name__ == "__main__":
    main()
