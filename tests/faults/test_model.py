"""Uploads, downloads, disconnects, downloaders that come back, killed nodes and drains in any order, compared with a
simple model.

The test runs three `Relay`s over one Redis in one event loop, with scripted clients. After every step, the model
predicts which clients get a response and which one, the state of each name, and what may be left in Redis.

A failure prints the steps that lead to it, and how to run them again.
"""

import asyncio
import os
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import fakeredis
import hypothesis
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from relay.access import Access, Token
from relay.errors import ClientGone, Error, Problem
from relay.settings import Settings
from relay.states import Outcome, State
from relay.store.store import Store
from relay.store.timing import LINGER
from relay.transfer import upload
from relay.transfer.drain import Phase
from tests.support.redis import RedisServer
from tests.support.sides import Downloader, Hosted, Uploader

T = TypeVar("T")

#: How a side ended: the bytes of an upload, the outcome of a download, an error, or the client's disconnect.
End = int | Outcome | Error | type[ClientGone]

NAMES = ("x", "y")
NODES = 3
#: Maximum number of nodes that are killed or drained in one run. With more, few transfers live long enough to matter.
REPLACED = 2
#: Sizes in bytes, so small that a few bytes fill the window.
CHUNK, WINDOW = 8, 16
NODE, NAME = st.integers(0, NODES - 1), st.sampled_from(NAMES)
#: Index of a token: usually 0, the first live token; sometimes 1, the second; sometimes 2, a token that has ended.
TOKEN = st.sampled_from([0, 0, 0, 0, 1, 2])
#: Size of a piece in bytes, from far below a chunk to far above the window.
SIZE = st.sampled_from([1, CHUNK, CHUNK + 1, 3 * WINDOW, 10 * WINDOW])
#: Number of runs on each server, and of steps in a run. `RELAY_TEST_FULL=1` in the environment raises both. Only then
#: does Hypothesis shrink a failure, because shrinking takes minutes.
EXAMPLES, STEPS, PHASES = 15, 40, [hypothesis.Phase.generate]
if os.environ.get("RELAY_TEST_FULL"):
    EXAMPLES, STEPS, PHASES = 150, 50, [hypothesis.Phase.generate, hypothesis.Phase.shrink]
#: A wait that never ends during a run, and the maximum time for everything that must happen, in seconds.
LONG, SOON = 300, 10.0
#: Seconds that an upload waits for its first downloader, which no run of the clock reaches.
FOR_EVER = 7 * 24 * 3600
#: Where a downloader that comes back begins: with all that it has, with half of it, with nothing, or with more than
#: there is yet.
BACK = st.sampled_from(["all", "all", "half", "nothing", "more"])


@dataclass(eq=False)
class Up:
    """An upload that has no response yet."""

    node: Hosted
    token: str
    name: str
    client: Uploader
    task: "asyncio.Task[int]"
    down: "Down | None" = None
    is_ended: bool = False
    has_name: bool = False
    #: How many bytes its last downloader had when it left; None if it has had none.
    had: int | None = None
    #: How many bytes its node has taken for downloaders, at least.
    taken: int = 0
    #: Whether its node keeps what was sent, so that a downloader may come back with less than that.
    can_rewind: bool = True

    def can_begin_at(self, start: int) -> bool:
        """Return whether a downloader that wants the file from byte offset `start` can have it."""
        if self.is_ended and start > len(self.client.content):
            return False
        return self.can_rewind or start >= self.taken


@dataclass(eq=False)
class Down:
    """A download that has not ended yet. If `up` is None, it waits for an upload."""

    node: Hosted
    token: str
    name: str
    client: Downloader
    task: "asyncio.Task[Outcome]"
    up: Up | None = None
    #: Whether it waits for an upload if there is none.
    waits: bool = False

    @property
    def position(self) -> int:
        """How many bytes of the file the client has."""
        return self.client.start + len(self.client.got)

    def wanted(self) -> bytes:
        """Return the bytes that it wants of what was sent so far."""
        assert self.up is not None
        return self.up.client.content[self.client.start :]

    def has_what_it_can(self) -> bool:
        """Return whether the response has begun, and all bytes sent have arrived or the client refuses the next."""
        return self.client.begun and (self.client.got == self.wanted() or self.client.is_blocked)

    @property
    def is_stuck(self) -> bool:
        """Whether it does not take what it is sent. Then another download may have its place."""
        return self.client.is_blocked and self.client.got != self.wanted()

    @property
    def is_finishing(self) -> bool:
        """Whether all that its client lacks is the end of the response."""
        return self.up is not None and self.up.is_ended and self.position == len(self.up.client.content)


Side = Up | Down
Ends = dict[Side, End]


class Model(RuleBasedStateMachine):
    """Each rule acts on the relays and on the model. Then `_settle` compares the two."""

    redis_url = ""

    def __init__(self) -> None:
        super().__init__()
        self.prefix = f"model-{secrets.token_hex(4)}"
        self.runner = asyncio.Runner()
        #: How far the clock by which uploads wait has been advanced, in seconds.
        self.ahead = 0.0
        upload.monotonic = lambda: time.monotonic() + self.ahead  # type: ignore[attr-defined]
        self.server = fakeredis.FakeServer()
        self.started = 0
        self.nodes = [self._start_node() for _ in range(NODES)]
        self.tokens = [self._mint(), self._mint()]
        self.dead_token = Token.new().id
        self.ups: list[Up] = []
        self.downs: list[Down] = []
        #: Names whose claim was left behind by a dead node. The next request for the name removes the claim.
        self.stale: set[tuple[str, str]] = set()
        #: Whether a node has been killed. If so, the streams that it should have deleted may remain until they expire.
        self.has_killed = False

    def teardown(self) -> None:
        for side in self._sides():
            side.client.leave()
        self._wait(self._have_ended, "all sides to end")
        self._run(self._close())
        self.runner.close()
        upload.monotonic = time.monotonic  # type: ignore[attr-defined]

    def _have_ended(self) -> bool:
        """Return whether all sides have ended. An upload whose whole body is here waits for its downloader to come
        back, although its own client has left: let it wait in vain.
        """
        self.ahead += LONG + 1
        self._look_again()
        return all(side.task.done() for side in self._sides())

    async def _close(self) -> None:
        await asyncio.gather(*(s.task for s in self._sides()), return_exceptions=True)
        for node in self.nodes:
            await node.stop()

    # -- rules -----------------------------------------------------------------------------------------------

    @rule(node=NODE, token=TOKEN, name=NAME)
    def put(self, node: int, token: int, name: str) -> None:
        up = self._put(self.nodes[node], self._token(token), name)
        refusal = self._refusal(up)
        if refusal is None and self._holder(up.token, up.name):
            refusal = Error.NAME_IN_USE
        self._settle(self._claimed(up) if refusal is None else {up: refusal})

    @rule(nodes=st.tuples(NODE, NODE), token=TOKEN, name=NAME)
    def put_twice_at_once(self, nodes: tuple[int, int], token: int, name: str) -> None:
        """One of the two gets the name, unless the name is taken or the token has ended."""
        one, other = (self.nodes[node] for node in nodes)
        if one.relay.settings.rewind != other.relay.settings.rewind:
            other = one  # what follows must not depend on which of the two gets the name
        pair = [self._put(node, self._token(token), name) for node in (one, other)]
        if refusal := self._refusal(pair[0]) or (Error.NAME_IN_USE if self._holder(pair[0].token, name) else None):
            self._settle(dict.fromkeys(pair, refusal))
            return
        self._wait(lambda: any(up.task.done() for up in pair), "one to be refused")
        loser, winner = sorted(pair, key=lambda up: not up.task.done())
        self._settle({loser: Error.NAME_IN_USE, **self._claimed(winner)})

    @rule(node=NODE, token=TOKEN, name=NAME, wait=st.sampled_from([0, LONG]), start=st.sampled_from([0, 0, 0, 3]))
    def get(self, node: int, token: int, name: str, wait: int, start: int) -> None:
        down = self._get(self.nodes[node], self._token(token), name, wait, start)
        end = self._refusal(down)
        holder: Up | None = None
        ends: Ends = {}
        if end is None:
            self.stale.discard((down.token, name))
            holder = self._holder(down.token, name)
            if holder is None:
                end = None if wait else Error.NO_UPLOAD
            elif holder.down is not None and holder.down.is_stuck and start > 0:
                ends = self._replaced(holder.down)
            elif holder.down is not None:  # one that begins anew may be anybody
                end = Error.TAKEN
        if end is not None:
            ends[down] = end
        elif holder is not None:
            ends |= self._attach(holder, down)
        self._settle(ends)

    @precondition(lambda self: any(up.down is None for up in self.ups))
    @rule(data=st.data(), node=NODE, back=BACK, wait=st.sampled_from([0, LONG]))
    def join(self, data: st.DataObject, node: int, back: str, wait: int) -> None:
        """A downloader comes, or comes back, to an upload that waits."""
        up = data.draw(st.sampled_from([up for up in self.ups if up.down is None]))
        down = self._get(self.nodes[node], up.token, up.name, wait, self._start_at(up, back))
        if not up.is_ended and up.can_begin_at(down.client.start):
            up.client.send(secrets.token_bytes(CHUNK))
        self._settle(self._attach(up, down))

    @precondition(lambda self: any(up.down is None for up in self.ups))
    @rule(data=st.data(), nodes=st.tuples(NODE, NODE))
    def join_twice_at_once(self, data: st.DataObject, nodes: tuple[int, int]) -> None:
        """One of the two gets the upload, if it can have what it wants."""
        up = data.draw(st.sampled_from([up for up in self.ups if up.down is None]))
        start = up.had or 0
        if not up.can_begin_at(start):
            return
        if not up.is_ended:
            up.client.send(secrets.token_bytes(CHUNK))
        wait = 0 if up.is_ended else LONG
        pair = [self._get(self.nodes[node], up.token, up.name, wait, start) for node in nodes]
        self._settle(self._joined(up, pair))

    @precondition(lambda self: self._stuck())
    @rule(data=st.data(), node=NODE, back=BACK)
    def come_back_beside_the_older_connection(self, data: st.DataObject, node: int, back: str) -> None:
        """The client's older connection is dead, and its node has not noticed. One that begins anew may be anybody."""
        old = data.draw(st.sampled_from(self._stuck()))
        up = old.up
        assert up is not None
        before, up.had = up.had, old.position
        down = self._get(self.nodes[node], up.token, up.name, 0, self._start_at(up, back))
        if down.client.start == 0:
            up.had = before
            self._settle({down: Error.TAKEN})
            return
        ends = self._replaced(old)
        self._settle(ends | self._attach(up, down))

    @precondition(lambda self: any(up.down is None and up.had is not None for up in self.ups))
    @rule()
    def nobody_comes_back_in_time(self) -> None:
        self.ahead += LONG + 1
        self._look_again()
        self._settle({up: Error.DOWNLOADER_GONE for up in self.ups if up.down is None and up.had is not None})

    @precondition(lambda self: any(not up.is_ended for up in self.ups))
    @rule(data=st.data(), size=SIZE)
    def send(self, data: st.DataObject, size: int) -> None:
        up = data.draw(st.sampled_from([up for up in self.ups if not up.is_ended]))
        up.client.send(secrets.token_bytes(size))
        self._settle(self._flow(up))

    @precondition(lambda self: any(not up.is_ended for up in self.ups))
    @rule(data=st.data())
    def end_the_body(self, data: st.DataObject) -> None:
        up = data.draw(st.sampled_from([up for up in self.ups if not up.is_ended]))
        up.client.end()
        up.is_ended = True
        ends = self._flow(up)
        if up.down is not None and not ends and up.down.is_finishing:
            self._wait(lambda: up.down and up.down.client.is_blocked, "the end to be handed over")
        self._settle(ends)

    @precondition(lambda self: self.downs)
    @rule(data=st.data())
    def pause_or_resume(self, data: st.DataObject) -> None:
        down = data.draw(st.sampled_from(self.downs))
        if down.client.takes.is_set():
            down.client.takes.clear()
        else:
            down.client.takes.set()
        self._settle(self._flow(down.up))

    @precondition(lambda self: self._may_leave())
    @rule(data=st.data())
    def uploader_leaves(self, data: st.DataObject) -> None:
        up = data.draw(st.sampled_from(self._may_leave()))
        up.client.leave()
        ends: Ends = {up: ClientGone}
        self._settle(ends | self._told(up.down, Outcome.UPLOADER_GONE))

    @precondition(lambda self: self.downs)
    @rule(data=st.data())
    def downloader_leaves(self, data: st.DataObject) -> None:
        """Its upload waits for it to come back."""
        down = data.draw(st.sampled_from(self.downs))
        down.client.leave()
        self._settle({down: ClientGone})

    @precondition(lambda self: self.ups)
    @rule(node=NODE, data=st.data())
    def cancel(self, node: int, data: st.DataObject) -> None:
        up = data.draw(st.sampled_from(self.ups))
        cancelling = self.nodes[node].relay.cancel(Access.of_operator(up.token), name=up.name)
        if up.down is not None and up.down.is_finishing:
            with pytest.raises(Problem) as refused:
                self._run(cancelling)
            assert refused.value.error is Error.TOO_LATE
            self._settle({})
        else:
            assert self._run(cancelling)
            self._settle({up: Error.CANCELLED, **self._told(up.down, Outcome.CANCELLED)})

    @rule(node=NODE, name=NAME)
    def cancel_what_nobody_uploads(self, node: int, name: str) -> None:
        token = self.tokens[0]
        if self._holder(token, name) is None:
            was_stale = (token, name) in self.stale
            assert self._run(self.nodes[node].relay.cancel(Access.of_operator(token), name=name)) is was_stale
            self.stale.discard((token, name))
            self._settle({})

    @precondition(lambda self: not any(down.is_finishing for down in self.downs))
    @rule(node=NODE, revoked=st.booleans())
    def a_token_ends(self, node: int, revoked: bool) -> None:
        self.dead_token = token = self.tokens.pop(0)
        relay = self.nodes[node].relay
        self._run(
            relay.revoke(Access.of_operator(token)) if revoked else delete(relay.store, relay.store.keys.token(token))
        )
        self.tokens.append(self._mint())
        ends: Ends = {}
        for up in self.ups:
            if up.token == token:
                ends |= {up: Error.REVOKED if revoked else Error.TOKEN_GONE, **self._told(up.down, Outcome.REVOKED)}
        ends |= {down: Error.UNKNOWN_TOKEN for down in self.downs if down.token == token and down.up is None}
        self._look_again()
        self._settle(ends)

    @precondition(lambda self: self._sides() and self.started < NODES + REPLACED)
    @rule(data=st.data())
    def a_node_is_killed(self, data: st.DataObject) -> None:
        """An upload whose downloader was on the node waits for it to come back."""
        dead = data.draw(st.sampled_from(self._sides())).node
        if any(down.is_finishing and down.up and down.up.node is dead for down in self.downs):
            return  # no upload would remain in the model that says how the download ends
        self.has_killed = True
        ends: Ends = {}
        for up in [up for up in self.ups if up.node is dead]:
            if up.down is None or up.down.node is dead:
                self.stale.add((up.token, up.name))
            else:
                ends |= self._told(up.down, Outcome.NODE_LOST)
        with_it: list[Side] = [side for side in self._sides() if side.node is dead]
        self._run(dead.kill([side.task for side in with_it]))
        self._forget(with_it)
        self.nodes[self.nodes.index(dead)] = self._start_node()
        self._run(self._bury(dead.id))
        self._settle(ends)

    @precondition(lambda self: self._sides() and self.started < NODES + REPLACED)
    @precondition(lambda self: not any(down.is_finishing for down in self.downs))  # a drain would wait for it
    @rule(data=st.data())
    def a_node_is_drained(self, data: st.DataObject) -> None:
        """An upload whose downloader was on the node waits for it to come back."""
        draining = data.draw(st.sampled_from(self._sides())).node
        relay = draining.relay
        relay.gate.advance(Phase.CLOSED)
        put, get = self._put(draining, self.tokens[0], "x"), self._get(draining, self.tokens[0], "x", LONG)
        self._settle({put: Error.DRAINING, get: Error.DRAINING})
        relay.gate.advance(Phase.RELEASED)
        waiting: list[Side] = [up for up in self.ups if up.node is draining and up.down is None]
        waiting += [down for down in self.downs if down.node is draining and down.up is None]
        self._settle(dict.fromkeys(waiting, Error.DRAINING))
        relay.gate.advance(Phase.CUT)
        ends: Ends = {}
        for up in [up for up in self.ups if up.down is not None and draining in (up.node, up.down.node)]:
            ends |= self._told(up.down, Outcome.DRAINED)
            if up.node is draining:
                ends[up] = Error.DRAINING
        self._settle(ends)
        self._run(draining.stop())
        self.nodes[self.nodes.index(draining)] = self._start_node()

    # -- what must hold --------------------------------------------------------------------------------------

    @invariant()
    def what_arrived_is_a_prefix(self) -> None:
        for down in self.downs:
            assert not down.client.is_complete
            assert down.up is not None or not down.client.got
            assert down.up is None or down.wanted().startswith(down.client.got)

    @invariant()
    def every_name_does_what_the_model_says(self) -> None:
        for token in self.tokens:
            for name in NAMES:
                if (token, name) not in self.stale:
                    state = self._state(token, name)
                    self._wait(partial(self._is, state, token, name), f"{name} to be {state}")

    @invariant()
    def nothing_is_left_in_redis(self) -> None:
        """Every key has a TTL. The streams of an ended transfer are gone, or expire soon if a node was killed."""
        self._wait(self._is_clean, "ended transfers to leave no key")

    async def _is(self, state: State, token: str, name: str) -> bool:
        found = await self.nodes[0].relay.store.transfers.look(token=token, name=name, use=False)
        return state is (found.state if found is not None else State.FREE)

    async def _is_clean(self) -> bool:
        store = self.nodes[0].relay.store
        live = {f"{{{up.token}}}:{up.name}" for up in self.ups} | {f"{{{token}}}:{name}" for token, name in self.stale}
        for key in [key.decode() async for key in store.commands.redis.scan_iter(match=f"{self.prefix}:*")]:
            left = await store.commands.redis.pttl(key)
            assert left != -1, f"{key} has no TTL"
            kind, _, rest = key.removeprefix(f"{self.prefix}:").partition(":")
            if kind == "transfer" and rest not in live:
                return False
            if kind in ("chunks", "acks") and ":".join(rest.split(":")[:2]) not in live:
                return self.has_killed and left <= LINGER * 1000
        return True

    # -- how it is done --------------------------------------------------------------------------------------

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    def _sides(self) -> list[Side]:
        return [*self.ups, *self.downs]

    def _start_node(self) -> Hosted:
        self.started += 1
        config = Settings(
            redis_url=self.redis_url,
            prefix=self.prefix,
            node=f"node{self.started}",
            chunk=CHUNK,
            window=WINDOW,
            upload_wait=FOR_EVER,
            rejoin_wait=LONG,
            rewind=0 if self._keeps_nothing(self.started) else 1024 * 1024,
            stall=LONG,
        )

        async def start() -> Hosted:
            return await Hosted(config, self.server).started()

        return self._run(start())

    @staticmethod
    def _keeps_nothing(number: int) -> bool:
        """Return whether the node with this number cannot send anything once more."""
        return number % NODES == 0

    async def _bury(self, dead: str) -> None:
        """Make the other nodes consider the dead node dead at once, as they would after its heartbeats stop."""
        store = self.nodes[0].relay.store
        await delete(store, store.keys.node(dead))
        await store.commands.redis.zrem(store.keys.nodes, dead)
        for node in self.nodes:
            node.relay.node._membership._seen.pop(dead, None)
            await node.relay.node._beat()
        # Nobody misses a node that lived too briefly to be on any list. The sides would notice within 5 s.
        self._look_again()

    def _mint(self) -> str:
        return self._run(self.nodes[0].relay.make_token()).id

    def _token(self, index: int) -> str:
        return [*self.tokens, self.dead_token][index]

    def _put(self, node: Hosted, token: str, name: str) -> Up:
        client = Uploader(is_open=True)
        client.send(secrets.token_bytes(4))
        work = node.relay.upload(
            Access.of_operator(token),
            name=name,
            length=None,
            media_type="",
            body=client.body(),
            client=client.connection,
        )
        self.ups.append(Up(node, token, name, client, self._task(work)))
        self.ups[-1].can_rewind = node.relay.settings.rewind > 0
        return self.ups[-1]

    def _get(self, node: Hosted, token: str, name: str, wait: int, start: int = 0) -> Down:
        client = Downloader(start)
        work = node.relay.download(
            Access.of_operator(token), name=name, wait=wait, sink=client, client=client.connection
        )
        self.downs.append(Down(node, token, name, client, self._task(work), waits=wait > 0))
        return self.downs[-1]

    def _task(self, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        return self.runner.get_loop().create_task(work)

    def _refusal(self, side: Up | Down) -> Error | None:
        return None if side.token in self.tokens else Error.UNKNOWN_TOKEN

    def _holder(self, token: str, name: str) -> Up | None:
        """Return the upload that has the name in the model, and not one that has only just asked for the name."""
        return next((up for up in self.ups if up.has_name and (up.token, up.name) == (token, name)), None)

    def _state(self, token: str, name: str) -> State:
        holder = self._holder(token, name)
        if holder is None:
            return State.FREE
        if holder.down is None:
            return State.WAITING
        return State.FINISHING if holder.down.is_finishing else State.STREAMING

    def _stuck(self) -> list[Down]:
        return [down for down in self.downs if down.up is not None and down.is_stuck]

    def _may_leave(self) -> list[Up]:
        """Return the uploads whose clients matter: their nodes have not received the whole body."""
        return [up for up in self.ups if not up.is_ended or (up.down is None and not up.taken)]

    @staticmethod
    def _start_at(up: Up, back: str) -> int:
        """Return the byte offset at which a downloader begins that comes back to the upload."""
        had = up.had or 0
        return {"all": had, "half": had // 2, "nothing": 0, "more": len(up.client.content) + 3}[back]

    def _attach(self, up: Up, down: Down) -> Ends:
        """Record that the download joins the upload. Return how both end, if they do.

        If the upload cannot send what the download wants, it ends, and the download waits for another one.
        """
        if up.can_begin_at(down.client.start):
            up.down, down.up = down, up
            return self._flow(up)
        ends: Ends = {up: Error.DOWNLOADER_GONE}
        return ends | ({} if down.waits else {down: Error.NO_UPLOAD})

    def _replaced(self, old: Down) -> Ends:
        """Wait until the download has lost its place. Return how it has ended: as its node or another one says."""
        self._wait(old.task.done, "the older connection to lose its place")
        (end,) = self._run(_ends([old.task]))
        assert end in (ClientGone, Outcome.DOWNLOADER_GONE)
        self._forget([old])
        return {}

    def _claimed(self, up: Up) -> Ends:
        """Record that the upload has the name. One of the downloads that wait for it joins; the others are too late."""
        up.has_name = True
        self.stale.discard((up.token, up.name))
        waiting = [down for down in self.downs if down.up is None and (down.token, down.name) == (up.token, up.name)]
        return self._joined(up, waiting) if waiting else {}

    def _joined(self, up: Up, downs: Sequence[Down]) -> Ends:
        """Record which of the downloads has joined the upload. The others are too late, unless it is stuck: then one
        that goes on with the file takes its place, as in `get`."""
        begun = self._wait(lambda: [down for down in downs if down.client.begun], "one download to join")
        (up.down,) = begun
        up.down.up = up
        others: list[Side] = [down for down in downs if down is not up.down]
        if not up.is_ended:
            self._wait(up.down.has_what_it_can, "bytes to arrive")
            resuming = [down for down in downs if down is not up.down and down.client.start > 0 and up.down.is_stuck]
            if resuming:
                late = dict.fromkeys([one for one in others if one not in resuming], Error.TAKEN)
                return self._replaced(up.down) | late | self._joined(up, resuming)
            return dict.fromkeys(others, Error.TAKEN)
        ends: Ends = dict(zip(others, self._run(_ends([down.task for down in others])), strict=True))
        assert {*ends.values()} <= {Error.TAKEN, Error.NO_UPLOAD}, "the upload was taken, or over by then"
        return {**ends, **self._flow(up)}

    def _flow(self, up: Up | None) -> Ends:
        """Return how a transfer ends if its body is complete and its downloader reads; otherwise nothing."""
        if up is None or up.down is None or not up.is_ended:
            return {}
        if up.down.client.start > len(up.client.content):
            return {up: Error.DOWNLOADER_GONE, up.down: Outcome.DOWNLOADER_GONE}
        if not up.down.client.takes.is_set():
            return {}
        return {up: len(up.client.content), up.down: Outcome.COMPLETE}

    @staticmethod
    def _told(down: Down | None, outcome: Outcome) -> Ends:
        return {} if down is None else {down: outcome}

    def _settle(self, ends: Mapping[Side, End]) -> None:
        """Check that exactly these sides end, and in this way, and that all bytes that can arrive do so."""
        assert self._run(_ends([side.task for side in ends])) == list(ends.values())
        for side, end in ends.items():
            if isinstance(side, Down):
                assert side.client.is_complete is (end is Outcome.COMPLETE)
                assert side.up is None or side.wanted().startswith(side.client.got)
                assert end is not Outcome.COMPLETE or side.client.got == side.wanted()
        self._forget(ends)
        for down in self.downs:
            if down.up is not None:
                self._wait(down.has_what_it_can, "bytes to arrive")
                down.up.taken = down.position + 1 if down.is_stuck else len(down.up.client.content)
        assert not [side for side in self._sides() if side.task.done()]

    def _forget(self, sides: Iterable[Side]) -> None:
        """Remove the sides from the model, and separate each from the side that it was joined with."""
        for side in sides:
            if isinstance(side, Up):
                self.ups.remove(side)
                if side.down is not None:
                    side.down.up = None
            else:
                self.downs.remove(side)
                if side.up is not None:
                    side.up.down, side.up.had = None, side.position

    def _look_again(self) -> None:
        """Make everything that waits check Redis now. It would do so by itself within half a minute."""
        for node in self.nodes:
            node.relay.node.inbox.wake_all()

    def _wait(self, condition: Callable[[], Any], what: str) -> Any:
        """Call the condition until it returns a true value, and return that value."""

        async def wait() -> Any:
            try:
                async with asyncio.timeout(SOON):
                    while True:
                        answer = condition()
                        if answer := await answer if isinstance(answer, Awaitable) else answer:
                            return answer
                        await asyncio.sleep(0.001)
            except TimeoutError:
                raise AssertionError(f"waited {SOON} s for {what}") from None

        return self._run(wait())


async def delete(store: Store, key: str) -> None:
    """Delete the key, as its expiry would."""
    await store.commands.redis.delete(key)


async def _ends(tasks: Sequence["asyncio.Task[Any]"]) -> list[End]:
    """Wait for the tasks, and return how each ended."""
    if tasks:
        _, pending = await asyncio.wait(tasks, timeout=SOON)
        assert not pending, [task.get_stack() for task in pending]
    return [_as_end(answer) for answer in await asyncio.gather(*tasks, return_exceptions=True)]


def _as_end(answer: Any) -> End:
    if isinstance(answer, Problem):
        return answer.error
    if isinstance(answer, ClientGone):
        return ClientGone
    if isinstance(answer, BaseException):
        raise answer
    return answer  # type: ignore[no-any-return]


@pytest.mark.parametrize("redis", ["fakeredis", "redis"])
def test_any_order(redis: str, request: pytest.FixtureRequest) -> None:
    url = ""
    if redis == "redis":
        server: RedisServer = request.getfixturevalue("redis_server")
        url = server.url

    class OnThatServer(Model):
        redis_url = url

    run_state_machine_as_test(
        OnThatServer,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            database=None,
            print_blob=True,
            phases=PHASES,
            suppress_health_check=list(HealthCheck),
        ),
    )
