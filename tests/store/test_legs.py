"""The legs of a transfer: what the scripts do if a reply was lost, and if a side does not know that its leg is over."""

import pytest

from relay.names import new_id
from relay.states import Answer, Outcome, State
from relay.store.records import Broken, Ender, Final, Returned, Touched, Transfer
from relay.store.store import Store
from relay.store.streams import Entry
from tests.store.conftest import client

UPLOAD = "digest"


async def begin(store: Store, transfer: Transfer, *, joiner: str = "me", start: int = 0, upload: str = UPLOAD) -> None:
    """Bring the transfer to its first leg."""
    resumable = transfer._replace(upload=upload)
    await store.transfers.claim(resumable, node="up", length=None, media_type="", use=False)
    assert await store.transfers.join(transfer, joiner=joiner, node="down", start=start) is Answer.JOINED


async def leave(store: Store, transfer: Transfer, *, joiner: str = "me", position: int = 0) -> Transfer:
    """End the leg of the download, and return the transfer in its next leg."""
    left = await store.transfers.leave(transfer, joiner=joiner, position=position)
    assert isinstance(left, Broken)
    return left.transfer


async def take_back(store: Store, transfer: Transfer, *, sender: str) -> Returned | Answer:
    return await store.transfers.take_back(transfer, upload=UPLOAD, sender=sender, node="up2", state=State.WAITING)


async def now(store: Store, transfer: Transfer) -> Transfer:
    found = await store.transfers.look(token=transfer.token, name=transfer.name, use=False)
    assert found is not None
    return found


async def keys(store: Store) -> set[str]:
    return {key.decode() async for key in client(store).scan_iter(f"{store.keys.prefix}:*")}


async def streams(store: Store) -> set[str]:
    return {key for key in await keys(store) if ":chunks:" in key or ":acks:" in key}


# -- repeats: the first reply was lost ---------------------------------------------------------------------------


async def test_a_repeated_leave_breaks_no_other_leg(store: Store, transfer: Transfer) -> None:
    await begin(store, transfer)
    second = await leave(store, transfer, position=5)
    assert await store.transfers.leave(transfer, joiner="me", position=5) is Answer.GONE
    assert await store.transfers.join(second, joiner="you", node="down2", start=5) is Answer.JOINED
    assert await store.transfers.leave(transfer, joiner="me", position=5) is Answer.GONE
    assert (await now(store, transfer)).state is State.STREAMING


async def test_a_repeated_interrupt_breaks_no_other_leg(store: Store, transfer: Transfer) -> None:
    await begin(store, transfer)
    for _ in range(2):
        away = await store.transfers.interrupt(transfer, sender=transfer.id)
        assert isinstance(away, Broken)
        assert (away.transfer.leg, away.other) == (1, "down")
    assert isinstance(await take_back(store, transfer, sender="again"), Returned)
    assert await store.transfers.interrupt(transfer, sender=transfer.id) is Answer.GONE
    assert ((await now(store, transfer)).state, (await now(store, transfer)).leg) == (State.WAITING, 2)


async def test_a_repeated_return_begins_no_other_leg(store: Store, transfer: Transfer) -> None:
    await begin(store, transfer)
    first = await take_back(store, transfer, sender="again")
    second = await take_back(store, transfer, sender="again")
    assert isinstance(first, Returned)
    assert isinstance(second, Returned)
    assert first.transfer.leg == second.transfer.leg == 1
    assert first.former == "up"


async def test_a_download_that_is_attached_may_leave_twice(store: Store, transfer: Transfer) -> None:
    resumable = transfer._replace(upload=UPLOAD)
    await store.transfers.claim(resumable, node="up", length=None, media_type="", use=False, state=State.INTERRUPTED)
    assert await store.transfers.join(transfer, joiner="me", node="down") is Answer.ATTACHED
    assert await store.transfers.join(transfer, joiner="me", node="down") is Answer.ATTACHED
    assert await store.transfers.join(transfer, joiner="you", node="down") is Answer.TAKEN
    assert (await leave(store, transfer)).leg == 0
    assert await store.transfers.leave(transfer, joiner="me") is Answer.GONE
    assert await store.transfers.join(transfer, joiner="you", node="down") is Answer.ATTACHED


# -- a side that does not know yet that its leg is over ----------------------------------------------------------


async def test_a_side_of_an_earlier_leg_learns_which_leg_it_is(store: Store, transfer: Transfer) -> None:
    await begin(store, transfer)
    second = await leave(store, transfer, position=7)
    assert await store.transfers.touch(transfer, written="0-0") == Touched(Outcome.BROKEN, leg=1)
    assert await store.transfers.touch(transfer, joiner="me") == Touched(Outcome.BROKEN, leg=1)
    # The upload goes on in that leg; the download that has left has no place in it.
    waits = await store.transfers.touch(second)
    assert (waits.outcome, waits.state, waits.start, waits.joiner) == (None, State.WAITING, 7, "")
    assert (await store.transfers.touch(second, joiner="me")).outcome is Outcome.STORE_LOST


async def test_a_side_of_an_earlier_leg_learns_how_the_transfer_ended(store: Store, transfer: Transfer) -> None:
    await begin(store, transfer)
    second = await leave(store, transfer, position=7)
    assert isinstance(await store.transfers.end(transfer, Outcome.CANCELLED), Final)
    assert await store.transfers.touch(transfer, written="0-0") == Touched(Outcome.BROKEN, leg=1)
    assert await store.transfers.touch(second) == Touched(Outcome.CANCELLED, position=7)
    await client(store).delete(transfer.keys.acks, second.keys.acks)


async def test_what_an_earlier_leg_still_writes_arrives_nowhere(store: Store, transfer: Transfer) -> None:
    await begin(store, transfer)
    old = store.transfers.stream(transfer)
    await old.append([b"abc"], offset=3)
    second = await leave(store, transfer, position=3)
    await store.transfers.join(second, joiner="you", node="down2", start=3)
    before = await keys(store)
    ack = await old.append([b"WRONG"], offset=8, whole=True)
    assert ack is None or ack.outcome is Outcome.BROKEN
    await old.read(position=8, acknowledge=True, count=4, timeout=0.01)
    assert await keys(store) == before
    new = store.transfers.stream(second)
    assert await new.read(position=3, acknowledge=False, count=4, timeout=0.01) == []
    progress = await new.acks(after="0-0", timeout=0.01)
    assert progress is not None
    assert (progress.position, progress.outcome) == (0, None)
    await new.append([b"de"], offset=5, whole=True)
    assert await new.read(position=3, acknowledge=True, count=4, timeout=0.01) == [
        Entry(5, b"de"),
        Entry(5, outcome=Outcome.COMPLETE, is_finishing=True),
    ]


async def test_a_download_of_an_earlier_leg_can_neither_finish_nor_end_the_transfer(
    store: Store, transfer: Transfer
) -> None:
    await begin(store, transfer)
    second = await leave(store, transfer)
    await store.transfers.join(second, joiner="you", node="down2")
    before = await keys(store)
    assert await store.transfers.finish(transfer, joiner="me") is Answer.GONE
    for outcome in (Outcome.COMPLETE, Outcome.DOWNLOADER_GONE, Outcome.NODE_LOST):
        ended = await store.transfers.end(transfer, outcome, Ender(joiner="me", unneeded=["chunks", "acks"]))
        assert ended is Answer.GONE
    assert (await now(store, transfer)).state is State.STREAMING
    assert {second.keys.chunks, second.keys.acks} <= before
    assert before - await keys(store) <= {transfer.keys.acks}


async def test_a_request_whose_place_is_taken_ends_nothing_but_its_own_streams(
    store: Store, transfer: Transfer
) -> None:
    await begin(store, transfer)
    back = await take_back(store, transfer, sender="again")
    assert isinstance(back, Returned)
    assert await store.transfers.join(back.transfer, joiner="me", node="down", start=0) is Answer.JOINED
    gone = await store.transfers.end(transfer, Outcome.UPLOADER_GONE, Ender(sender=transfer.id, unneeded=["acks"]))
    assert gone is Answer.GONE
    stands = await store.transfers.touch(back.transfer, sender="again")
    assert (stands.outcome, stands.state) == (None, State.STREAMING)
    assert (await store.transfers.touch(back.transfer)).outcome is Outcome.UPLOADER_GONE
    assert not await client(store).exists(transfer.keys.acks)
    assert await client(store).exists(back.transfer.keys.acks) == 1


async def test_a_download_that_left_before_it_joined_a_leg_does_not_delete_the_streams_of_the_next_one(
    store: Store, transfer: Transfer
) -> None:
    """It left between the uploader's return and its own next join, so both downloads have the same leg."""
    await begin(store, transfer)
    back = await take_back(store, transfer, sender="again")
    assert isinstance(back, Returned)
    assert (await leave(store, back.transfer)).leg == back.transfer.leg
    assert await store.transfers.join(back.transfer, joiner="you", node="down2") is Answer.JOINED
    ended = await store.transfers.end(back.transfer, Outcome.DOWNLOADER_GONE, Ender(joiner="me", unneeded=["chunks"]))
    assert ended is Answer.GONE
    assert await client(store).exists(back.transfer.keys.chunks)


async def test_an_end_that_comes_from_an_earlier_leg_deletes_the_streams_of_both(
    store: Store, transfer: Transfer
) -> None:
    """The upload's client leaves before the upload has noticed that the downloader has left."""
    await begin(store, transfer)
    await leave(store, transfer)
    assert await client(store).exists(transfer.keys.acks)
    assert isinstance(await store.transfers.end(transfer, Outcome.UPLOADER_GONE, Ender(unneeded=["acks"])), Final)
    assert not await streams(store)


@pytest.mark.parametrize("verb", ["leave", "interrupt", "return", "end"])
async def test_a_verb_finds_the_leg_that_the_transfer_is_in(store: Store, transfer: Transfer, verb: str) -> None:
    """Its caller knows an earlier leg: the script says `moved`, and the verb is run with the keys of that leg."""
    await begin(store, transfer)
    for count in range(1, 3):
        at = await leave(store, transfer._replace(leg=0), joiner=f"me{count - 1}" if count > 1 else "me")
        assert at.leg == count
        await store.transfers.join(at, joiner=f"me{count}", node="down")
    match verb:
        case "leave":
            assert (await leave(store, transfer, joiner="me2")).leg == 3
        case "interrupt":
            away = await store.transfers.interrupt(transfer, sender=transfer.id)
            assert isinstance(away, Broken)
            assert (away.transfer.leg, away.other) == (3, "down")
        case "return":
            back = await take_back(store, transfer, sender=new_id())
            assert isinstance(back, Returned)
            assert back.transfer.leg == 3
        case "end":
            assert isinstance(await store.transfers.end(transfer, Outcome.CANCELLED), Final)
            assert await client(store).exists(at.keys.chunks, at.keys.acks) == 2


async def test_a_join_knows_only_the_leg_that_it_was_shown(store: Store, transfer: Transfer) -> None:
    await begin(store, transfer)
    second = await leave(store, transfer)
    assert await store.transfers.join(transfer, joiner="you", node="down") is Answer.ABSENT
    assert await store.transfers.join(second, joiner="you", node="down") is Answer.JOINED


# -- what a leg leaves behind ------------------------------------------------------------------------------------


async def test_the_downloader_has_what_anybody_knows_that_it_has(store: Store, transfer: Transfer) -> None:
    """Its own word, its last acknowledgement, or where it began."""
    await begin(store, transfer)
    await store.transfers.stream(transfer).append([b"abcdef"], offset=6)
    await store.transfers.stream(transfer).read(position=4, acknowledge=True, count=1, timeout=0.01)
    second = await leave(store, transfer, position=2)
    assert (await now(store, transfer)).position == 4
    await store.transfers.join(second, joiner="me", node="down", start=1)  # it has lost some
    third = await leave(store, second)
    assert (await now(store, transfer)).position == 1
    await store.transfers.join(third, joiner="me", node="down", start=1)
    await leave(store, third, position=3)
    assert (await now(store, transfer)).position == 3


async def test_a_transfer_and_its_token_live_as_long_as_it_waits(store: Store, transfer: Transfer) -> None:
    raw, settings = client(store), store.commands.settings
    await begin(store, transfer)
    for key in (transfer.keys.transfer, transfer.keys.token):
        await raw.expire(key, 5)
    second = await leave(store, transfer)
    for key in (transfer.keys.transfer, transfer.keys.token):
        assert await raw.ttl(key) > settings.rejoin_wait
    await store.transfers.join(second, joiner="me", node="down")
    assert isinstance(await store.transfers.interrupt(second, sender=transfer.id), Broken)
    for key in (transfer.keys.transfer, transfer.keys.token):
        assert await raw.ttl(key) > settings.resume_wait


async def test_an_upload_that_cannot_go_on_is_kept_for_its_end(store: Store, transfer: Transfer) -> None:
    """An uploader of a plain PUT cannot return; and if it has left while the last bytes were on their way, nobody
    could send them once more."""
    await begin(store, transfer, upload="")
    assert await store.transfers.interrupt(transfer, sender=transfer.id) is Answer.KEPT
    await store.transfers.finish(transfer, joiner="me")
    assert await store.transfers.end(transfer, Outcome.DRAINED, Ender(unneeded=["acks"])) is Answer.KEPT
    assert await store.transfers.leave(transfer, joiner="me") is Answer.KEPT
    await store.transfers.end(transfer, Outcome.DOWNLOADER_GONE, Ender(joiner="me", unneeded=["chunks"]))
    assert not await streams(store)


async def test_a_request_that_redis_has_forgotten_is_lost_and_not_superseded(store: Store, transfer: Transfer) -> None:
    """Redis was rolled back: the request before has its place again. The uploader may go on or begin again."""
    await begin(store, transfer)
    before = await client(store).hgetall(transfer.keys.transfer)
    back = await take_back(store, transfer, sender="again")
    assert isinstance(back, Returned)
    await client(store).delete(transfer.keys.transfer)
    await client(store).hset(transfer.keys.transfer, mapping=before)
    await client(store).expire(transfer.keys.transfer, 60)
    assert (await store.transfers.touch(back.transfer, sender="again")).outcome is Outcome.STORE_LOST
