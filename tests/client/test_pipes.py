"""Of a pipe, the latest bytes can be sent again, and no others."""

import os
from collections.abc import Iterator
from typing import BinaryIO

import pytest

from relay.client.failures import Exit, Failure
from relay.client.source import PipeSource


@pytest.fixture
def pipe() -> Iterator[BinaryIO]:
    """Yield a pipe with ten bytes in it."""
    reading, writing = os.pipe()
    os.write(writing, b"0123456789")
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        yield file


@pytest.mark.parametrize("offset", range(11))
def test_what_is_kept_can_be_sent_again(pipe: BinaryIO, offset: int) -> None:
    source = PipeSource(pipe, "x")
    assert b"".join(source.pieces(0)) == b"0123456789"
    assert b"".join(source.pieces(offset)) == b"0123456789"[offset:]


def test_what_is_gone_cannot(pipe: BinaryIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.client.source.PIECE", 2)
    source = PipeSource(pipe, "x", replay=4)
    assert b"".join(source.pieces(0)) == b"0123456789"
    assert b"".join(source.pieces(6)) == b"6789"
    with pytest.raises(Failure, match="start the whole pipeline again") as failed:
        next(source.pieces(5))
    assert failed.value.status is Exit.LEFT


@pytest.mark.parametrize("read", [0, 3])
def test_what_the_receiver_has_of_an_earlier_run_is_read_and_not_sent(
    pipe: BinaryIO, monkeypatch: pytest.MonkeyPatch, read: int
) -> None:
    """It may have more than was read here: then a break came while the relay threw away what it has already."""
    monkeypatch.setattr("relay.client.source.PIECE", 3)
    source = PipeSource(pipe, "x")
    first = source.pieces(0)
    assert b"".join(next(first) for _ in range(read // 3)) == b"0123456789"[:read]
    assert b"".join(source.pieces(7)) == b"789"


def test_a_receiver_that_has_more_than_there_is_has_another_file(pipe: BinaryIO) -> None:
    with pytest.raises(Failure, match="stdin had 10") as failed:
        list(PipeSource(pipe, "x").pieces(11))
    assert failed.value.status is Exit.LEFT
