"""Tables of Redis commands and replies as bytes. Replies are parsed whole, and cut at many places."""

from typing import Any

import pytest
from redis.exceptions import NoScriptError, ResponseError

from relay.store.resp import Command, IncompleteError, pack, parse, reader

LARGE = bytes(range(256)) * 100


@pytest.mark.parametrize(
    ("commands", "sent"),
    [
        ([], b""),
        ([("PING",)], b"*1\r\n$4\r\nPING\r\n"),
        (
            [("SET", "é", 12), ("GET", b"k")],
            b"*3\r\n$3\r\nSET\r\n$2\r\n\xc3\xa9\r\n$2\r\n12\r\n*2\r\n$3\r\nGET\r\n$1\r\nk\r\n",
        ),
        ([("SET", "k", memoryview(b"")), ("X",)], b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$0\r\n\r\n*1\r\n$1\r\nX\r\n"),
        ([("SET", "k", LARGE), ("X",)], b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$25600\r\n" + LARGE + b"\r\n*1\r\n$1\r\nX\r\n"),
    ],
)
def test_commands(commands: list[Command], sent: bytes) -> None:
    assert b"".join(pack(commands)) == sent


def test_a_large_argument_is_not_copied() -> None:
    view = memoryview(LARGE)
    assert any(piece is view for piece in pack([("SET", "k", view)]))


REPLIES: list[tuple[bytes, Any]] = [
    (b"+OK\r\n", b"OK"),
    (b":-12\r\n", -12),
    (b"$-1\r\n", None),
    (b"*-1\r\n", None),
    (b"$0\r\n\r\n", b""),
    (b"$4\r\na\r\nb\r\n", b"a\r\nb"),
    (b"*0\r\n", []),
    (b"*3\r\n:1\r\n*1\r\n$1\r\nx\r\n$-1\r\n", [1, [b"x"], None]),
    (b"$25600\r\n" + LARGE + b"\r\n", LARGE),
    (b"*2\r\n$25600\r\n" + LARGE + b"\r\n:1\r\n", [LARGE, 1]),
]


@pytest.mark.parametrize(("received", "reply"), REPLIES, ids=[str(received[:12]) for received, _ in REPLIES])
def test_replies(received: bytes, reply: Any) -> None:
    block = bytearray(b"before" + received + b"after")
    end = 6 + len(received)
    assert parse(block, 6, end) == (reply, end)
    for cut in [*range(6, min(end, 40)), end - 2, end - 1]:
        with pytest.raises(IncompleteError) as caught:
            parse(block, 6, min(cut, end - 1))
        assert cut < caught.value.need <= end, "it must not ask for more bytes than the reply has"


def test_hiredis_parses_the_replies_in_the_same_way() -> None:
    taken = reader()
    for received, reply in REPLIES:
        for cut in range(1, min(len(received), 40)):
            taken.feed(received[:cut])
            assert taken.gets() is False
            taken.feed(received[cut:])
            assert taken.gets() == reply


@pytest.mark.parametrize(
    ("received", "kind"),
    [
        (b"-ERR no such key\r\n", ResponseError),
        (b"-LOADING\r\n", ResponseError),
        (b"-NOSCRIPT No matching script.\r\n", NoScriptError),
    ],
)
def test_errors_are_values(received: bytes, kind: type[Exception]) -> None:
    parsed, _ = parse(bytearray(received), 0, len(received))
    taken = reader()
    taken.feed(received)
    for reply in (parsed, taken.gets()):
        assert type(reply) is kind
        assert str(reply) == received[1:-2].decode()


def test_a_large_reply_is_a_slice_of_the_block() -> None:
    block = bytearray(b"$25600\r\n" + LARGE + b"\r\n")
    reply, _ = parse(block, 0, len(block))
    assert isinstance(reply, memoryview)
    assert reply.obj is block
