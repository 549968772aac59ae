"""The intake of a body: its table of moves, and what it does with its buffer, its connection and its clock."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from relay.buffers import Buffer
from relay.errors import ClientGone
from relay.server.intake import MOVES, BodyIntake, Event, State
from relay.tasks import stop

#: Bytes of a chunk here; four of them fill the buffer.
CHUNK = 4


class Source:
    """A connection: what it was told, and what it does when it is told to."""

    def __init__(self, *, is_direct: bool = True, kept: bytes = b"") -> None:
        self.calls: list[str] = []
        self._is_direct = is_direct
        self._kept = kept
        self._lost: Callable[[], None] | None = None

    def receive_into(self, intake: BodyIntake) -> bool:
        if self._is_direct:
            self.calls.append("receive")
            intake.add(self._kept)
        return self._is_direct and intake.missing > 0

    def stop_receiving(self, missing: int) -> None:
        self.calls.append(f"stop, {missing} missing")

    def pause_reading(self) -> None:
        self.calls.append("pause")

    def resume_reading(self) -> None:
        self.calls.append("resume")

    @contextlib.contextmanager
    def on_lost(self, callback: Callable[[], None]) -> Iterator[None]:
        self._lost = callback
        yield
        self._lost = None

    def lose(self) -> None:
        assert self._lost is not None
        self._lost()


class Body:
    """What comes through the parser: pieces, and the end. The end may be that the client has left."""

    def __init__(self, *pieces: bytes, is_open: bool = False) -> None:
        self._pieces: asyncio.Queue[bytes | type[ClientGone] | None] = asyncio.Queue()
        for piece in (*pieces, *(() if is_open else (None,))):
            self.send(piece)

    def send(self, piece: bytes | type[ClientGone] | None) -> None:
        self._pieces.put_nowait(piece)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (piece := await self._pieces.get()) is not None:
            if not isinstance(piece, bytes):
                raise piece
            yield piece


class Clock:
    """Seconds that pass when the test says so."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def intake_of(body: Body, source: Source, clock: Clock | None = None) -> BodyIntake:
    return BodyIntake(aiter(body), source, Buffer(CHUNK), clock=clock or Clock())


async def begin(intake: BodyIntake, length: int | None) -> "asyncio.Task[bool]":
    """Begin to fill the intake. Return the task when it waits for more."""
    filling = asyncio.create_task(intake.fill(length=length))
    await settle()
    return filling


def receive(intake: BodyIntake, data: bytes) -> None:
    """Receive as from a socket."""
    while data:
        room = intake.room()[: len(data)]
        room[:] = data[: len(room)]
        intake.note_received(len(room))
        data = data[len(room) :]


async def settle() -> None:
    """Let every task do what it can."""
    for _ in range(10):
        await asyncio.sleep(0)


async def take_all(intake: BodyIntake) -> bytes:
    """Take until the body is exhausted."""
    taken = b""
    while not intake.is_exhausted:
        await intake.wait()
        taken += intake.take()
    return taken


LEGAL = {
    ("parsed", "switch"): "direct",
    ("parsed", "end"): "complete",
    ("parsed", "break"): "lost",
    ("parsed", "drop"): "dropped",
    ("direct", "end"): "complete",
    ("direct", "break"): "lost",
    ("direct", "drop"): "dropped",
    ("complete", "break"): "complete",
    ("complete", "drop"): "complete",
    ("lost", "break"): "lost",
    ("lost", "drop"): "lost",
}


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("event", Event)
async def test_every_pair_of_state_and_event_is_a_move_or_a_bug(state: State, event: Event) -> None:
    intake = intake_of(Body(), Source())
    intake.state = state
    if (wanted := LEGAL.get((state.value, event.value))) is None:
        assert (state, event) not in MOVES
        with pytest.raises(KeyError):
            intake._move(event)
    else:
        intake._move(event)
        assert intake.state.value == wanted


@pytest.mark.parametrize("length", [None, 7])
@pytest.mark.parametrize("is_direct", [False, True])
async def test_a_body_that_comes_in_pieces_is_taken_in_order(length: int | None, is_direct: bool) -> None:
    source = Source(is_direct=is_direct and length is None)
    intake = intake_of(Body(b"abc", b"", b"defg"), source)
    filling = asyncio.create_task(intake.fill(length=length))
    assert await take_all(intake) == b"abcdefg"
    assert await filling
    assert (intake.state, intake.total, source.calls) == (State.COMPLETE, 7, [])


async def test_a_body_of_known_length_is_received_directly_after_its_first_piece() -> None:
    source = Source()
    intake = intake_of(Body(b"ab", is_open=True), source)
    filling = await begin(intake, length=10)
    assert intake.state is State.DIRECT
    receive(intake, b"cdef")
    assert (intake.take(), intake.missing) == (b"abcdef"[:2], 4)
    receive(intake, b"ghij")
    assert intake.is_whole
    assert source.calls == ["receive", "stop, 0 missing"], "before anything else can come"
    assert await filling
    assert await take_all(intake) == b"cdefghij"


async def test_what_the_parser_had_kept_comes_before_what_is_received() -> None:
    source = Source(kept=b"cd")
    intake = intake_of(Body(b"ab", is_open=True), source)
    filling = await begin(intake, length=6)
    receive(intake, b"ef")
    assert await filling
    assert await take_all(intake) == b"abcdef"


async def test_nothing_is_received_directly_if_the_parser_had_the_rest() -> None:
    source = Source(kept=b"cd")
    intake = intake_of(Body(b"ab", b""), source)
    assert await intake.fill(length=4)
    assert source.calls == ["receive"]
    assert await take_all(intake) == b"abcd"


@pytest.mark.parametrize("is_direct", [False, True])
async def test_a_client_that_leaves_early_is_gone(is_direct: bool) -> None:
    source, body = Source(is_direct=is_direct), Body(b"ab", is_open=True)
    intake = intake_of(body, source)
    filling = await begin(intake, length=10)
    if is_direct:
        receive(intake, b"c")
        source.lose()
    else:
        body.send(ClientGone)
    with pytest.raises(ClientGone):
        await filling
    assert not intake.is_whole
    assert source.calls == (["receive", "stop, 7 missing"] if is_direct else [])


async def test_a_client_that_leaves_after_its_last_byte_has_sent_everything() -> None:
    source = Source()
    intake = intake_of(Body(b"ab", is_open=True), source)
    filling = await begin(intake, length=4)
    receive(intake, b"cd")
    source.lose()
    assert await filling


async def test_less_than_the_declared_length_is_not_all_of_it() -> None:
    """Whatever the server says."""
    intake = intake_of(Body(b"ab"), Source(is_direct=False))
    with pytest.raises(ClientGone):
        await intake.fill(length=3)
    assert intake.state is State.LOST


@pytest.mark.parametrize(("limit", "is_taken"), [(None, True), (6, True), (5, False), (0, False)])
async def test_a_body_above_the_limit_is_dropped(limit: int | None, is_taken: bool) -> None:
    intake = intake_of(Body(b"abc", b"def"), Source())
    assert await intake.fill(length=None, limit=limit) is is_taken
    assert intake.state is (State.COMPLETE if is_taken else State.DROPPED)


async def test_a_piece_above_the_limit_wakes_nobody() -> None:
    """It would be delivered, and count for its token, before the upload is refused."""
    body = Body(is_open=True)
    intake = intake_of(body, Source())
    filling, waiting = asyncio.create_task(intake.fill(length=None, limit=5)), asyncio.create_task(intake.wait())
    await settle()
    body.send(b"abcdef")
    assert not await filling
    await settle()
    assert not waiting.done()
    await stop([waiting])


@pytest.mark.parametrize("is_direct", [False, True])
async def test_an_upload_that_ends_leaves_the_rest_to_the_parser(is_direct: bool) -> None:
    source = Source(is_direct=is_direct)
    intake = intake_of(Body(b"ab", is_open=True), source)
    filling = await begin(intake, length=10)
    await stop([filling])
    assert intake.state is State.DROPPED
    assert source.calls == (["receive", "stop, 8 missing"] if is_direct else [])


async def test_a_full_buffer_pauses_the_connection_until_something_is_taken() -> None:
    source = Source()
    intake = intake_of(Body(b"ab", is_open=True), source)
    filling = await begin(intake, length=100)
    receive(intake, bytes(20))
    assert source.calls[-1] == "pause"
    paused = len(source.calls)
    while intake.untaken >= 4 * CHUNK:
        assert len(source.calls) == paused
        intake.take()
    assert source.calls[paused:] == ["resume"]
    await stop([filling])


async def test_a_buffer_that_the_parser_filled_pauses_the_connection_at_once() -> None:
    """A body may have been read ahead, to see whether its client still lives."""
    source = Source(kept=bytes(40))
    intake = intake_of(Body(b"ab", is_open=True), source)
    filling = await begin(intake, length=100)
    assert source.calls == ["receive", "pause"]
    await stop([filling])


async def test_the_next_piece_is_not_asked_for_while_the_buffer_is_full() -> None:
    body = Body(bytes(4 * CHUNK), b"more", is_open=True)
    intake = intake_of(body, Source())
    filling = await begin(intake, length=None)
    assert intake.total == 4 * CHUNK
    intake.take()
    await settle()
    assert intake.total == 4 * CHUNK + 4
    await stop([filling])


@pytest.mark.parametrize("is_direct", [False, True])
async def test_the_stall_clock_runs_only_while_the_client_owes_bytes(is_direct: bool) -> None:
    source, clock, body = Source(is_direct=is_direct), Clock(), Body(is_open=True)
    intake = intake_of(body, source, clock)

    async def arrive(data: bytes) -> None:
        if intake.state is State.DIRECT:
            receive(intake, data)
        else:
            body.send(data)
        await settle()

    assert intake.waiting_since is None, "nobody has asked for the body yet"
    clock.now = 1.0
    filling = await begin(intake, length=100 if is_direct else None)
    assert intake.waiting_since == 1.0
    clock.now = 2.0
    await arrive(b"a")
    assert intake.waiting_since == 2.0, "what arrives restarts it"
    clock.now = 3.0
    await arrive(bytes(4 * CHUNK))
    assert intake.waiting_since is None, "the buffer is full"
    clock.now = 4.0
    while intake.untaken >= 4 * CHUNK:
        assert intake.waiting_since is None
        intake.take()
    assert intake.waiting_since == 4.0
    clock.now = 5.0
    intake.take()
    assert intake.waiting_since == 4.0, "what is taken does not restart it"
    await stop([filling])
    assert intake.waiting_since is None


async def test_a_chunk_that_still_grows_is_left_if_only_full_ones_are_wanted() -> None:
    intake = intake_of(Body(b"abcd", is_open=True), Source())
    filling = await begin(intake, length=100)
    receive(intake, b"ef")
    assert intake.take() == b"abcd"
    assert intake.take(full_only=True) == b""
    assert intake.take() == b"ef"
    assert intake.take() == b""
    await stop([filling])


async def test_waiting_ends_with_the_last_byte_of_an_empty_body_too() -> None:
    intake = intake_of(Body(), Source())
    waiting = asyncio.create_task(intake.wait())
    await settle()
    assert not waiting.done()
    assert await intake.fill(length=0)
    await asyncio.wait_for(waiting, 20)
    assert intake.is_exhausted
