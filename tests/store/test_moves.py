"""Run the real scripts for every (state, event) pair, and compare the results with the table in `relay.states`."""

import asyncio

import pytest

from relay.errors import Problem
from relay.names import new_id
from relay.states import MOVES, Answer, Event, Move, Outcome, State
from relay.store.commands import Caller
from relay.store.records import Broken, Claimed, Ender, Final, Returned, Transfer
from relay.store.store import Store
from tests.store.conftest import client, live

UPLOAD = "digest"


async def bring_to(store: Store, transfer: Transfer, state: State) -> None:
    if state is not State.FREE:
        begins = State.INTERRUPTED if state is State.INTERRUPTED else State.WAITING
        resumable = transfer._replace(upload=UPLOAD)
        await store.transfers.claim(resumable, node="up", length=None, media_type="", use=False, state=begins)
    if state in (State.STREAMING, State.FINISHING):
        assert await store.transfers.join(transfer, joiner="me", node="down") is Answer.JOINED
    if state is State.FINISHING:
        assert await store.transfers.finish(transfer, joiner="me") is Answer.FINISHING


async def ask(store: Store, transfer: Transfer, event: Event) -> Answer:  # noqa: PLR0911 (a table)
    match event:
        case Event.CLAIM:
            other = store.transfers.identify(token=transfer.token, name=transfer.name, transfer_id=new_id())
            answer = await store.transfers.claim(other, node="up2", length=None, media_type="", use=False)
            return Answer.BUSY if isinstance(answer, Transfer) else Answer.CLAIMED
        case Event.JOIN:
            return await store.transfers.join(transfer, joiner=new_id(), node="down2")
        case Event.FINISH:
            return await store.transfers.finish(transfer, joiner="me")
        case Event.LEAVE:
            left = await store.transfers.leave(transfer, joiner="me")
            return Answer.BROKEN if isinstance(left, Broken) else left
        case Event.INTERRUPT:
            away = await store.transfers.interrupt(transfer, sender=transfer.id)
            return Answer.BROKEN if isinstance(away, Broken) else away
        case Event.RETURN:
            back = await store.transfers.take_back(
                transfer, upload=UPLOAD, sender=new_id(), node="up2", state=State.WAITING
            )
            return Answer.RETURNED if isinstance(back, Returned) else back
        case Event.GIVE_UP:
            final = await store.transfers.end(transfer, Outcome.NO_DOWNLOADER, within=[State.WAITING])
        case Event.END:
            final = await store.transfers.end(transfer, Outcome.CANCELLED)
        case Event.CLOSE:
            final = await store.transfers.end(transfer, Outcome.NODE_LOST)
    return Answer.ENDED if isinstance(final, Final) else final


async def state_of(store: Store, transfer: Transfer) -> State:
    found = await store.transfers.look(token=transfer.token, name=transfer.name, use=False)
    return State.FREE if found is None else found.state


@pytest.mark.parametrize(("pair", "move"), MOVES.items(), ids=lambda value: "-".join(map(str, value)))
async def test_move(store: Store, transfer: Transfer, pair: tuple[State, Event], move: Move) -> None:
    state, event = pair
    await bring_to(store, transfer, state)
    assert await ask(store, transfer, event) is move.answer
    assert await state_of(store, transfer) is move.state


@pytest.mark.parametrize("state", State)
async def test_a_small_upload_is_written_whole_and_is_finishing(store: Store, transfer: Transfer, state: State) -> None:
    """It has the same move as FINISH. If that is refused, nothing is written."""
    await bring_to(store, transfer, state)
    move = MOVES[state, Event.FINISH]
    stream = store.transfers.stream(transfer)
    written = await stream.append([b"ab\xff"], offset=3, whole=True)
    assert (written is not None) is (move.answer is Answer.FINISHING)
    assert await state_of(store, transfer) is move.state
    entries = await client(store).xrange(transfer.keys.chunks)
    if state is not State.STREAMING:  # if it is finishing, this counts as a repeat
        assert entries == []
        return
    assert await store.transfers.stream(transfer).append([b"ab\xff"], offset=3, whole=True) is not None
    chunk, end = await stream.read(position=0, acknowledge=False, count=4, timeout=0.01)
    assert (chunk.offset, bytes(chunk.data), chunk.outcome) == (3, b"ab\xff", None)
    assert (end.offset, end.outcome, end.is_finishing) == (3, Outcome.COMPLETE, True)
    assert await store.transfers.finish(transfer, joiner="me") is Answer.FINISHING  # as nodes of earlier versions do


async def test_a_small_upload_of_an_earlier_leg_is_not_written(store: Store, transfer: Transfer) -> None:
    await bring_to(store, transfer, State.STREAMING)
    left = await store.transfers.leave(transfer, joiner="me")
    assert isinstance(left, Broken)
    assert await store.transfers.join(left.transfer, joiner="you", node="down") is Answer.JOINED
    ended = await store.transfers.stream(transfer).append([b"abc"], offset=3, whole=True)
    assert ended is not None  # the end of that leg's acks says so
    assert ended.outcome is Outcome.BROKEN
    assert await state_of(store, transfer) is State.STREAMING
    assert not await client(store).exists(transfer.keys.chunks)


@pytest.mark.parametrize("event", [event for event in Event if event is not Event.CLAIM])
@pytest.mark.parametrize("state", State)
async def test_a_stranger_moves_nothing(store: Store, transfer: Transfer, state: State, event: Event) -> None:
    """A caller with the id of a transfer that has ended gets the same answer as if the name were free."""
    await bring_to(store, transfer, state)
    over = store.transfers.identify(token=transfer.token, name=transfer.name, transfer_id=new_id())
    assert await ask(store, over, event) is MOVES[State.FREE, event].answer
    assert await state_of(store, transfer) is state


@pytest.mark.parametrize("state", State)
async def test_a_repeated_claim_stands(store: Store, transfer: Transfer, state: State) -> None:
    """The reply to the first claim was lost, so the caller cannot know whether the name was free or what has become
    of its transfer."""
    await bring_to(store, transfer, state)
    assert await store.transfers.claim(transfer, node="up", length=None, media_type="", use=False) == Claimed([])
    assert await state_of(store, transfer) is (State.WAITING if state is State.FREE else state)


async def test_a_claim_makes_a_readable_hash_with_a_ttl(store: Store, transfer: Transfer) -> None:
    await store.transfers.claim(transfer, node="up", length=5, media_type="text/plain", use=False)
    raw = client(store)
    fields = await raw.hgetall(transfer.keys.transfer)
    assert fields.pop(b"created").isdigit()
    assert fields == {
        b"id": transfer.id.encode(),
        b"state": b"waiting",
        b"uploader": b"up",
        b"hears": b"up",
        b"length": b"5",
        b"type": b"text/plain",
        b"rejoins": b"1",
    }
    assert 350 < await raw.ttl(transfer.keys.transfer) <= 360
    assert await raw.hget(transfer.keys.token, "transfer:file.bin") == transfer.id.encode()


async def test_a_claim_of_a_taken_name_returns_the_holder(store: Store, transfer: Transfer) -> None:
    await store.transfers.claim(transfer, node="up", length=5, media_type="", use=False)
    other = store.transfers.identify(token=transfer.token, name=transfer.name, transfer_id=new_id())
    holder = await store.transfers.claim(other, node="up2", length=None, media_type="", use=False)
    assert isinstance(holder, Transfer)
    assert (holder.id, holder.uploader, holder.length) == (transfer.id, "up", 5)
    assert holder.vouched == 0
    await store.transfers.vouch(transfer)
    later = await store.transfers.claim(other, node="up2", length=None, media_type="", use=False)
    assert isinstance(later, Transfer)
    assert holder.read_at <= later.vouched <= later.read_at


async def test_a_claim_that_ended_before_it_was_answered_is_not_made_again(store: Store, transfer: Transfer) -> None:
    """The reply to the first claim was lost. Before the claim was repeated, the transfer was cancelled, or it was
    joined and broke."""
    await store.transfers.claim(transfer, node="up", length=5, media_type="", use=False)
    await store.transfers.end(transfer, Outcome.CANCELLED)
    assert await store.transfers.claim(transfer, node="up", length=5, media_type="", use=False) is Outcome.CANCELLED
    assert await state_of(store, transfer) is State.FREE


@pytest.mark.parametrize("state", State)
async def test_a_digest_is_recorded_in_every_state_for_whoever_knows_the_upload(
    store: Store, transfer: Transfer, state: State
) -> None:
    """It changes nothing else, and is kept with the result."""
    await bring_to(store, transfer, state)
    is_live = state is not State.FREE
    assert not await store.transfers.describe(transfer, upload="another", sha256="bad")
    for sha256 in ("ab", "cd"):
        assert await store.transfers.describe(transfer, upload=UPLOAD, sha256=sha256) is is_live
    assert await state_of(store, transfer) is state
    if is_live:
        found = await store.transfers.look(token=transfer.token, name=transfer.name, use=False)
        assert found is not None
        assert found.sha256 == "cd"
        await store.transfers.end(found, Outcome.COMPLETE, within=[*State])
        result = await store.transfers.result(transfer)
        assert result is not None
        assert (result.outcome, result.sha256) == (Outcome.COMPLETE, "cd")
    assert not await store.transfers.describe(transfer, upload=UPLOAD, sha256="ef")


async def test_vouching_for_an_ended_transfer_creates_no_key(store: Store, transfer: Transfer) -> None:
    await store.transfers.vouch(transfer)
    assert not await client(store).exists(transfer.keys.transfer)


async def test_a_repeated_join_is_joined_and_another_is_taken(store: Store, transfer: Transfer) -> None:
    await store.transfers.claim(transfer, node="up", length=None, media_type="", use=False)
    assert await store.transfers.join(transfer, joiner="me", node="down") is Answer.JOINED
    assert await store.transfers.join(transfer, joiner="me", node="down") is Answer.JOINED
    assert await store.transfers.join(transfer, joiner="you", node="down") is Answer.TAKEN


async def test_a_joiner_ends_only_its_own_download(store: Store, transfer: Transfer) -> None:
    await store.transfers.claim(transfer, node="up", length=None, media_type="", use=False)
    await store.transfers.join(transfer, joiner="me", node="down")
    assert await store.transfers.end(transfer, Outcome.DOWNLOADER_GONE, Ender(joiner="you")) is Answer.GONE
    assert isinstance(await store.transfers.end(transfer, Outcome.DOWNLOADER_GONE, Ender(joiner="me")), Final)


async def test_only_the_joiner_itself_may_finish_and_then_end_a_transfer(store: Store, transfer: Transfer) -> None:
    await bring_to(store, transfer, State.STREAMING)
    assert await store.transfers.finish(transfer, joiner="you") is Answer.GONE
    assert await state_of(store, transfer) is State.STREAMING
    await store.transfers.finish(transfer, joiner="me")
    assert await store.transfers.end(transfer, Outcome.DOWNLOADER_GONE, Ender(joiner="you")) is Answer.GONE
    assert isinstance(await store.transfers.end(transfer, Outcome.DOWNLOADER_GONE, Ender(joiner="me")), Final)


async def test_a_finishing_transfer_completes_without_its_token(store: Store, transfer: Transfer) -> None:
    await bring_to(store, transfer, State.FINISHING)
    await store.tokens.revoke(token=transfer.token)
    for side in ({"written": "0-0"}, {"joiner": "me"}):
        assert await store.transfers.touch(transfer, **side) == live(State.FINISHING, "down")  # type: ignore[arg-type]
    assert isinstance(await store.transfers.end(transfer, Outcome.COMPLETE, Ender(joiner="me")), Final)
    await client(store).delete(transfer.keys.chunks, transfer.keys.acks)


async def test_no_outcome_is_left_for_an_upload_that_left_while_finishing(store: Store, transfer: Transfer) -> None:
    await bring_to(store, transfer, State.FINISHING)
    assert await store.transfers.end(transfer, Outcome.DRAINED, Ender(unneeded=["acks"])) is Answer.KEPT
    assert await store.transfers.touch(transfer, joiner="me") == live(State.FINISHING, "down")
    await store.transfers.end(transfer, Outcome.COMPLETE, Ender(joiner="me", unneeded=["chunks"]))
    assert not await client(store).exists(*transfer.keys.all()[1:])


@pytest.mark.parametrize("state", State)
async def test_an_end_deletes_the_streams_that_only_its_caller_reads(
    store: Store, transfer: Transfer, state: State
) -> None:
    """It does so even if another caller has ended the transfer before and left the outcome in them."""
    await bring_to(store, transfer, state)
    for _ in range(2):
        await store.transfers.end(transfer, Outcome.NODE_LOST, Ender(unneeded=["chunks", "acks"]))
        assert not await client(store).exists(transfer.keys.chunks, transfer.keys.acks)


async def test_only_one_caller_hears_that_it_ended_the_transfer(store: Store, transfer: Transfer) -> None:
    await store.transfers.claim(transfer, node="up", length=9, media_type="", use=False)
    await store.transfers.join(transfer, joiner="me", node="down")
    final = await store.transfers.end(transfer, Outcome.COMPLETE, Ender(joiner="me", position=9))
    assert isinstance(final, Final)
    assert (final.delivered, final.transfer.uploader, final.transfer.downloader) == (9, "up", "down")
    assert await store.transfers.end(transfer, Outcome.UPLOADER_GONE) is Answer.GONE


async def test_an_end_leaves_no_claim_and_no_field(store: Store, transfer: Transfer) -> None:
    await store.transfers.claim(transfer, node="up", length=9, media_type="", use=False)
    await store.transfers.end(transfer, Outcome.UPLOADER_GONE)
    raw = client(store)
    assert not await raw.exists(transfer.keys.transfer, transfer.keys.chunks, transfer.keys.acks)
    assert await raw.hget(transfer.keys.token, "transfer:file.bin") is None


async def wish(store: Store, transfer: Transfer, node: str) -> Transfer | None:
    return await store.transfers.look(token=transfer.token, name=transfer.name, use=False, waits_on=node)


async def unwant(store: Store, transfer: Transfer, node: str) -> None:
    await store.transfers.unwant(token=transfer.token, name=transfer.name, node=node)


async def wanted(store: Store, transfer: Transfer) -> bytes | None:
    answer: bytes | None = await client(store).hget(transfer.keys.token, "wanted:file.bin")
    return answer


async def test_a_claim_returns_each_node_where_a_download_waits_once(store: Store, transfer: Transfer) -> None:
    for node in ("a", "node-b", "a", "b", "c", "b"):
        assert await wish(store, transfer, node) is None
    await unwant(store, transfer, "b")
    for _ in range(2):  # repeated, as after a lost reply
        claimed = await store.transfers.claim(transfer, node="up", length=None, media_type="", use=False)
        assert claimed == Claimed(["a", "node-b", "c"])
    for node in ("a", "c", "node-b"):
        await unwant(store, transfer, node)
    assert await wanted(store, transfer) is None


async def test_a_join_removes_the_list_of_waiting_nodes(store: Store, transfer: Transfer) -> None:
    await wish(store, transfer, "a")
    await store.transfers.claim(transfer, node="up", length=None, media_type="", use=False)
    assert await wanted(store, transfer) == b"a"
    await store.transfers.join(transfer, joiner="me", node="a")
    assert await wanted(store, transfer) is None


async def test_a_download_that_finds_an_upload_is_not_listed_as_waiting(store: Store, transfer: Transfer) -> None:
    await store.transfers.claim(transfer, node="up", length=None, media_type="", use=False)
    assert await wish(store, transfer, "a") is not None
    assert await wanted(store, transfer) is None


async def test_a_waiting_download_does_not_recreate_a_revoked_token(store: Store, transfer: Transfer) -> None:
    await store.tokens.revoke(token=transfer.token)
    with pytest.raises(Problem):
        await wish(store, transfer, "a")
    await unwant(store, transfer, "a")
    assert not await client(store).exists(transfer.keys.token)


async def test_news_returns_the_transfers_that_no_longer_wait(store: Store, transfer: Transfer) -> None:
    claims = {what: store.transfers.identify(token=transfer.token, name=what, transfer_id=new_id()) for what in "abcd"}
    for claim in claims.values():
        await store.transfers.claim(claim, node="up", length=None, media_type="", use=False)
    assert await store.transfers.no_longer_waiting([*claims.values()]) == []
    await store.transfers.join(claims["b"], joiner="me", node="down")
    await store.transfers.end(claims["c"], Outcome.UPLOADER_GONE)
    successor = store.transfers.identify(token=transfer.token, name="c", transfer_id=new_id())
    await store.transfers.claim(successor, node="up", length=None, media_type="", use=False)
    await client(store).delete(claims["d"].keys.transfer)
    assert await store.transfers.no_longer_waiting([*claims.values(), successor]) == [
        claims["b"],
        claims["c"],
        claims["d"],
    ]
    await client(store).delete(transfer.keys.token)
    assert await store.transfers.no_longer_waiting([claims["a"]]) == [claims["a"]]
    await client(store).delete(claims["b"].keys.chunks, claims["b"].keys.acks)


LATE = ["claim", "join", "look", "release", "unwant", "vouch"]


@pytest.mark.parametrize("verb", LATE)
async def test_a_verb_that_redis_carries_out_after_its_caller_gave_up_does_nothing(
    store: Store, transfer: Transfer, verb: str
) -> None:
    """Redis stood still, or the connection was stuck."""
    commands = store.commands
    before = sorted([key async for key in client(store).scan_iter(f"{commands.keys.prefix}:*")])
    keys = {
        "claim": [transfer.keys.token, transfer.keys.transfer, transfer.keys.acks],
        "join": transfer.keys.all(),
        "vouch": [transfer.keys.transfer],
        "unwant": [transfer.keys.token],
    }.get(verb, [transfer.keys.token, transfer.keys.transfer])
    over = asyncio.get_running_loop().time()
    with pytest.raises(TimeoutError):
        await commands.evaluate(verb, keys, [], commands.connections.share, caller=Caller(over))
    assert sorted([key async for key in client(store).scan_iter(f"{commands.keys.prefix}:*")]) == before


async def test_the_verbs_that_must_not_be_late_are_these(store: Store) -> None:
    assert sorted(verb for verb, script in store.commands._scripts.items() if script.expires) == LATE
