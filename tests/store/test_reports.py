"""What operators see: the methods of `Census` (report, enrol, lives, overview, transfers, tokens), and `Reports`."""

from dataclasses import dataclass, replace

from relay.access import Token
from relay.cluster.node import Node
from relay.cluster.progress import Progress
from relay.names import new_id
from relay.operations.census import Census
from relay.operations.reports import Reports
from relay.states import State
from relay.store.records import Broken, Transfer
from relay.store.store import Store
from tests.store.conftest import client


def progress(transfer_id: str, token: str) -> Progress:
    return Progress(
        id=transfer_id,
        token=token,
        name="x",
        state=State.WAITING,
        uploader="a",
        downloader="",
        length=None,
        delivered=0,
        rate=0.0,
        seconds=1.0,
    )


async def test_a_report_replaces_the_one_before(store: Store, token: str) -> None:
    await store.nodes.beat(node="a", facts={"waiting": 2, "uploading": 1})
    await Census(store).report(node="a", transfers=[progress("1", token), progress("2", token)])
    await Census(store).report(node="a", transfers=[progress("2", token), progress("3", token)])
    overview = await Census(store).overview()
    assert {transfer.id for transfer in overview.transfers} == {"2", "3"}
    assert (overview.waiting, overview.streaming) == (2, 1)
    await Census(store).report(node="a", transfers=[])
    assert (await Census(store).overview()).transfers == []


async def test_whole_tokens_of_older_nodes_are_not_shown(store: Store) -> None:
    """While a cluster is upgraded, nodes of version 0.1 have tokens of 22 characters in their keys and reports."""
    old = "abcdefgh" + 14 * "x"
    await client(store).hset(store.keys.token(old), "uses", 1)
    await client(store).pexpire(store.keys.token(old), 60_000)
    await Census(store).enrol(lives={old: 60})
    await store.nodes.beat(node="a", facts={})
    await Census(store).report(node="a", transfers=[progress("1", old)])
    overview = await Census(store).overview()
    assert [life.token for life in overview.lives] == ["abcdefgh"]
    assert [transfer.token for transfer in overview.transfers] == ["abcdefgh"]


async def test_a_node_that_does_not_beat_is_lost(store: Store) -> None:
    await store.nodes.beat(node="a", facts={"waiting": 2})
    await client(store).delete(store.keys.node("a"))
    (node,) = (await Census(store).overview()).nodes
    assert (node.node, node.alive) == ("a", False)


async def test_tokens_are_enrolled_in_the_order_in_which_they_expire(store: Store, token: str) -> None:
    other = Token.new().id
    await store.tokens.make(token=other)
    await client(store).pexpire(store.keys.token(token), 5000)
    lives = await Census(store).lives(tokens=[other, token, Token.new().id])
    assert sorted(round(left) for left in lives.values()) == [0, 5, 1200]
    assert await Census(store).enrol(lives=lives) == []
    overview = await Census(store).overview()
    assert overview.tokens == 2
    assert [life.token for life in overview.lives] == [token, other]


async def test_a_token_that_seems_expired_is_returned_once_and_then_forgotten(store: Store, token: str) -> None:
    await Census(store).enrol(lives={token: 0.001})
    while not (over := await Census(store).enrol(lives={})):
        pass
    assert over == [token]
    assert await Census(store).enrol(lives={}) == [], "another caller is checking it"
    assert (await Census(store).overview()).tokens == 1, "it has been used meanwhile and lives"
    await store.tokens.revoke(token=token)
    assert (await Census(store).overview()).tokens == 0
    await Census(store).enrol(lives=await Census(store).lives(tokens=[token]))
    assert await client(store).zcard(store.keys.tokens) == 0


async def test_reports_enrol_used_tokens_and_correct_their_expiry(store: Store, token: str) -> None:
    node = Node(store.commands.settings, store)
    reports = Reports(store.commands.settings, store, node)
    node.load.used_tokens.add(token)
    await reports.report()
    assert not node.load.used_tokens
    await client(store).zadd(store.keys.tokens, {token: 1.0})
    await reports.report()  # this one finds that the token seems expired
    await reports.report()  # this one finds that it is not
    ((_, score),) = await client(store).zrange(store.keys.tokens, 0, -1, withscores=True)
    seconds, microseconds = await client(store).time()
    assert 1190 < score - seconds - microseconds / 1e6 <= 1201


async def test_redis_is_read_once_a_second(store: Store, token: str) -> None:
    reports = Reports(store.commands.settings, store, Node(store.commands.settings, store))
    assert (await reports.overview()).tokens == 0
    await Census(store).enrol(lives={token: 60.0})
    assert (await reports.overview()).tokens == 0, "it was read a moment ago"


@dataclass(eq=False)
class Waiting:
    """An upload that waits on a node."""

    transfer: Transfer
    node: str
    looked: float = 0.0

    def progress(self, now: float) -> Progress:
        return replace(progress(self.transfer.id, self.transfer.token), uploader=self.node)


async def test_what_is_over_here_is_not_shown_though_it_was_reported(store: Store, transfer: Transfer) -> None:
    node = Node(store.commands.settings, store)
    reports = Reports(store.commands.settings, store, node)
    upload = Waiting(transfer, node.id)
    node.load.uploads[State.WAITING][upload] = None
    await store.nodes.beat(node=node.id, facts=node.load.facts())
    await reports.report()
    overview = await reports.overview()
    assert [shown.id for shown in overview.transfers] == [transfer.id], "once, though it is in the report, too"
    assert overview.waiting == 1
    del node.load.uploads[State.WAITING][upload]
    overview = await reports.overview()
    assert (overview.transfers, overview.waiting) == ([], 0)
    assert len((await Census(store).overview()).transfers) == 1, "Redis still has the report"


async def test_another_nodes_row_grows_old_and_its_own_does_not(store: Store) -> None:
    node = Node(store.commands.settings, store)
    reports = Reports(store.commands.settings, store, node)
    for each in (node.id, "other"):
        await store.nodes.beat(node=each, facts={"waiting": 0})
    seen = await client(store).zscore(store.keys.nodes, "other")
    await client(store).zadd(store.keys.nodes, {"other": seen - 5})

    async def ages() -> list[float]:
        by_node = {row.node: row.age for row in (await reports.overview()).nodes}
        return [by_node[node.id], by_node["other"]]

    own, other = await ages()
    assert own == 0
    assert 5 <= other < 8
    own, later = await ages()
    assert own == 0
    assert later > other, "what was read a moment ago is as much older"


async def test_transfers_lists_all_with_those_that_stream_first(store: Store, token: str, transfer: Transfer) -> None:
    await store.transfers.claim(transfer, node="up", length=30, media_type="", use=False)
    second = store.transfers.identify(token=token, name="a%3Ab", transfer_id=new_id())
    await store.transfers.claim(second, node="up", length=None, media_type="", use=False)
    await store.transfers.join(second, joiner=new_id(), node="down")
    await store.transfers.stream(second).append([b"0123456789"], offset=10)
    await store.transfers.stream(second).read(position=10, acknowledge=True, count=1, timeout=0.01)
    streams, waits = await Census(store).transfers()
    assert (streams.id, streams.name, streams.token) == (second.id, "a%3Ab", token)
    assert (streams.state, streams.uploader, streams.downloader) == (State.STREAMING, "up", "down")
    assert (streams.delivered, streams.length) == (10, None)
    assert (waits.id, waits.state, waits.length, waits.downloader) == (transfer.id, State.WAITING, 30, "")


async def test_transfers_lists_one_whose_uploader_is_away(store: Store, transfer: Transfer) -> None:
    """It is as far as its downloader is, although no stream says so."""
    resumable = transfer._replace(upload="digest")
    await store.transfers.claim(resumable, node="up", length=30, media_type="", use=False)
    await store.transfers.join(transfer, joiner="me", node="down", start=4)
    await store.transfers.stream(transfer).append([b"0123456789"], offset=14)
    await store.transfers.stream(transfer).read(position=14, acknowledge=True, count=1, timeout=0.01)

    async def listed() -> Progress:
        (shown,) = await Census(store).transfers()
        return shown

    shown = await listed()
    assert (shown.state, shown.uploader, shown.downloader, shown.delivered) == (State.STREAMING, "up", "down", 14)
    assert isinstance(await store.transfers.interrupt(transfer, sender=transfer.id), Broken)
    shown = await listed()
    assert (shown.state, shown.uploader, shown.downloader) == (State.INTERRUPTED, "", "down")
    assert (shown.delivered, shown.length, shown.leg, shown.share) == (14, 30, 1, 14 / 30)
    assert isinstance(await store.transfers.leave(transfer, joiner="me"), Broken)
    assert (await listed()).downloader == ""
    await Census(store).report(node="a", transfers=[await listed()])
    await store.nodes.beat(node="a", facts={"interrupted": 1})
    overview = await Census(store).overview()
    assert [shown.state for shown in overview.transfers] == [State.INTERRUPTED]
    assert overview.interrupted == 1


async def test_tokens_lists_all_or_those_with_a_prefix(store: Store, token: str) -> None:
    other = Token.new().id
    await store.tokens.make(token=other)
    await client(store).pexpire(store.keys.token(other), 5000)
    assert [life.token for life in await Census(store).tokens()] == [other, token]
    assert [life.token for life in await Census(store).tokens(beginning=token[:10])] == [token]
