"""What an upload keeps to send it once more, and the bytes that it sends to a downloader that comes back."""

import asyncio
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext

import pytest

from relay.buffers import Buffer, Bytes
from relay.server.intake import BodyIntake
from relay.transfer.rewind import _OVERHEAD, Rewind, RewindBudget
from relay.transfer.supply import Supply

MIB = 1024 * 1024


def joined(pieces: Iterable[Bytes]) -> bytes:
    return b"".join(map(bytes, pieces))


def budget(pieces: int, size: int) -> RewindBudget:
    """Return a budget with room for so many pieces of one size in one upload, and for eight times as many in all."""
    return RewindBudget(pieces * (size + _OVERHEAD), window=0)


# -- Rewind --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("offset", range(11))
def test_any_offset_can_be_gone_back_to_across_the_borders_of_pieces(offset: int) -> None:
    kept = Rewind(budget(9, 9))
    for piece in (b"abc", b"d", memoryview(b"efgh"), b"ij"):
        kept.append(piece)
    assert (kept.begin, kept.end) == (0, 10)
    assert joined(kept.since(offset)) == b"abcdefghij"[offset:]


def test_the_oldest_bytes_are_forgotten_first() -> None:
    kept = Rewind(budget(3, 2), begin=100)
    for piece in (b"ab", b"cd", b"ef", b"gh"):
        kept.append(piece)
    assert (kept.begin, kept.end, joined(kept.since(102))) == (102, 108, b"cdefgh")


def test_a_piece_that_is_larger_than_the_budget_is_not_kept() -> None:
    kept = Rewind(budget(1, 2))
    kept.append(b"ab")
    kept.append(b"c" * 999)
    assert (kept.begin, kept.end, joined(kept.since(1001))) == (1001, 1001, b"")


def test_an_upload_may_keep_its_window_beside_its_budget() -> None:
    """What is in the window is not acknowledged. So what is acknowledged has all of the budget."""
    kept = Rewind(RewindBudget(10 * (1 + _OVERHEAD), window=5 * (1 + _OVERHEAD)))
    for _ in range(20):
        kept.append(b"x")
    assert kept.end - kept.begin == 15


@pytest.mark.parametrize("window", [0, 1000])
def test_with_a_budget_of_0_nothing_is_kept(window: int) -> None:
    kept = Rewind(RewindBudget(0, window=window))
    kept.append(b"abc")
    assert (kept.begin, kept.end) == (3, 3)


def test_the_uploads_of_a_node_share_its_budget() -> None:
    """Those that come too late keep less, or nothing; nobody else's bytes are forgotten for them."""
    shared = budget(1, 10)
    early = [Rewind(shared) for _ in range(8)]
    for each in early:
        each.append(b"0123456789")
    late = Rewind(shared)
    late.append(b"a")
    assert shared.left == 0
    assert (late.begin, late.end) == (1, 1)
    assert all(joined(each.since(0)) == b"0123456789" for each in early)
    early[0].clear()
    late.append(b"b")
    assert joined(late.since(1)) == b"b"


def test_what_is_cleared_is_given_back() -> None:
    shared = budget(4, 10)
    before = shared.left
    for _ in range(3):
        kept = Rewind(shared)
        for _ in range(100):
            kept.append(b"0123456789")
        assert shared.left < before
        kept.clear()
        assert shared.left == before
        assert kept.begin == kept.end == 1000


@pytest.mark.parametrize("size", [1, 100, 20_000])
def test_the_memory_is_bounded_whatever_the_size_of_the_pieces(size: int) -> None:
    """The pieces are views of the blocks that they were received into."""
    block = memoryview(bytes(size))
    kept = Rewind(RewindBudget(MIB, window=0))
    tracemalloc.start()
    try:
        for _ in range(3 * MIB // (size + _OVERHEAD)):
            kept.append(block[:])
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken + kept.end - kept.begin < 1.1 * MIB
    assert kept.end - kept.begin > 0.9 * MIB * size / (size + _OVERHEAD)


# -- Supply --------------------------------------------------------------------------------------------------------


class Source:
    """A client whose body comes through the parser only."""

    def receive_into(self, intake: BodyIntake) -> bool:
        return False

    def stop_receiving(self, missing: int) -> None: ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def on_lost(self, callback: Callable[[], None]) -> AbstractContextManager[None]:
        return nullcontext()


class Body:
    """A supply over a body whose pieces the test sends one by one."""

    def __init__(self, shared: RewindBudget, *, begin: int = 0, chunk: int = 4) -> None:
        self._pieces: asyncio.Queue[bytes | None] = asyncio.Queue()
        intake = BodyIntake(self._iterate(), Source(), Buffer(chunk))
        self.supply = Supply(intake, shared, begin=begin)
        self._filling = asyncio.create_task(intake.fill(length=None))

    async def _iterate(self) -> AsyncIterator[bytes]:
        while (piece := await self._pieces.get()) is not None:
            yield piece

    def send(self, *pieces: bytes, end: bool = False) -> None:
        for piece in pieces:
            self._pieces.put_nowait(piece)
        if end:
            self._pieces.put_nowait(None)

    async def take(self, size: int) -> bytes:
        """Take pieces until they have `size` bytes."""
        taken = b""
        async with asyncio.timeout(5):
            while len(taken) < size:
                await self.supply.wait()
                taken += bytes(self.supply.take())
        assert len(taken) == size
        return taken

    async def take_rest(self) -> bytes:
        taken = b""
        async with asyncio.timeout(5):
            while not self.supply.is_exhausted:
                await self.supply.wait()
                taken += bytes(self.supply.take())
        return taken


LETTERS: Sequence[bytes] = (b"ab", b"cdefg", b"h", b"ijklmnop", b"q")
WHOLE = b"".join(LETTERS)


@pytest.mark.parametrize("back", range(len(WHOLE) + 1))
async def test_everything_that_was_kept_can_be_sent_again_and_then_the_rest(back: int) -> None:
    body = Body(budget(99, 9))
    body.send(*LETTERS)
    assert await body.take(len(WHOLE)) == WHOLE
    assert body.supply.seek(back)
    assert body.supply.position == back
    body.send(b"rest", end=True)
    assert await body.take_rest() == (WHOLE + b"rest")[back:]
    assert body.supply.position == len(WHOLE) + 4
    assert not body.supply.is_short


async def test_a_downloader_may_go_back_again_while_bytes_are_sent_once_more() -> None:
    body = Body(budget(99, 9))
    body.send(*LETTERS)
    await body.take(len(WHOLE))
    assert body.supply.seek(5)
    await body.supply.wait()
    first = bytes(body.supply.take())
    assert WHOLE[5:].startswith(first)
    assert first
    assert body.supply.seek(3)
    body.send(end=True)
    assert await body.take_rest() == WHOLE[3:]


async def test_nobody_can_go_back_to_what_was_forgotten() -> None:
    body = Body(budget(2, 4), chunk=4)
    body.send(b"abcd", b"efgh", b"ijkl")
    await body.take(12)
    assert not body.supply.seek(3)
    assert body.supply.seek(4)
    body.send(end=True)
    assert await body.take_rest() == b"efghijkl"


async def test_nobody_can_go_back_to_before_the_request() -> None:
    """The body of a request that continues an upload begins in the middle of the file."""
    body = Body(budget(9, 9), begin=10)
    body.send(b"klmn", end=True)
    assert not body.supply.seek(9)
    assert body.supply.seek(11)
    assert await body.take_rest() == b"lmn"


@pytest.mark.parametrize("to", range(len(WHOLE) + 1))
async def test_what_the_downloader_has_is_received_and_thrown_away(to: int) -> None:
    body = Body(budget(99, 9))
    assert body.supply.seek(to)
    body.send(*LETTERS, end=True)
    assert await body.take_rest() == WHOLE[to:]
    assert not body.supply.is_short
    assert body.supply.position == len(WHOLE)


async def test_what_was_thrown_away_can_be_sent_to_the_next_downloader() -> None:
    body = Body(budget(99, 9))
    assert body.supply.seek(6)
    body.send(*LETTERS)
    await body.supply.wait()
    first = bytes(body.supply.take())
    assert first
    assert WHOLE[6:].startswith(first)
    assert body.supply.seek(0)
    body.send(end=True)
    assert await body.take_rest() == WHOLE


async def test_a_body_that_ends_before_the_downloader_begins_is_short() -> None:
    body = Body(budget(99, 9))
    assert body.supply.seek(len(WHOLE) + 1)
    body.send(*LETTERS, end=True)
    await asyncio.wait_for(body.supply.wait(), 5)
    assert body.supply.is_short
    assert body.supply.take() == b""


async def test_nothing_is_taken_before_the_offset_at_which_to_go_on() -> None:
    body = Body(budget(99, 9))
    assert body.supply.seek(8)
    body.send(b"abcdefg")
    waiting = asyncio.create_task(body.supply.wait())
    done, _ = await asyncio.wait([waiting], timeout=0.05)
    assert not done
    body.send(b"hij", end=True)
    await waiting
    assert await body.take_rest() == b"ij"


async def test_a_supply_that_is_closed_gives_its_budget_back() -> None:
    shared = budget(99, 9)
    before = shared.left
    body = Body(shared)
    body.send(*LETTERS, end=True)
    await body.take_rest()
    assert shared.left < before
    body.supply.close()
    assert shared.left == before
