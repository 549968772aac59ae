"""How often a small transfer asks Redis. Each round trip costs both nodes more than the bytes do."""

import asyncio
from collections.abc import Sequence
from typing import Any

import fakeredis
import pytest

from relay.access import Access, Token
from relay.settings import Settings
from relay.states import Outcome, State
from relay.store.resp import Command
from relay.store.scripts import load_scripts
from relay.store.wire import SocketConnection
from relay.transfer.relay import Relay
from tests.store.conftest import client
from tests.support.redis import RedisServer
from tests.support.sides import Downloader, Uploader, serving

#: The round trips of a transfer of two nodes whose upload comes first.
PAIR = ["claim", "look", "join", "wake XREAD chunks", "whole XREAD acks", "end", "UNLINK acks"]
#: What nodes ask by themselves.
_ROUTINE = ("roll", "beat", "report", "XTRIM inbox XREAD inbox")


def what(commands: Sequence[Command]) -> str:
    """Return one round trip in words: the verb of a script, or a command and the kind of its key."""
    verbs: dict[object, str] = {script.sha: verb for verb, script in load_scripts().items()}
    verbs |= {script.source: verb for verb, script in load_scripts().items()}
    words: list[str] = []
    for name, *arguments in commands:
        if name in ("EVAL", "EVALSHA"):
            words.append(verbs[arguments[0]])
        else:
            key = next(each for each in arguments if isinstance(each, str) and ":" in each)
            words += [str(name), key.split(":")[1]]
    return " ".join(words)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the round trips so far, but those that nodes make by themselves."""
    seen: list[str] = []
    call = SocketConnection.call

    async def noted(self: SocketConnection, commands: Sequence[Command], *, large: bool = False) -> list[Any]:
        if (words := what(commands)) not in _ROUTINE:
            seen.append(words)
        return await call(self, commands, large=large)

    monkeypatch.setattr(SocketConnection, "call", noted)
    return seen


async def transfer(up: Relay, down: Relay, token: str, *, is_upgraded: bool) -> None:
    """Run a transfer of 1 KiB whose upload waits when the download comes.

    Unless it `is_upgraded`, the upload's node is one of an earlier version.
    """
    sender, receiver, access = Uploader([b"x" * 1024]), Downloader(), Access.of_operator(token)
    sending = asyncio.create_task(
        up.upload(access, name="x", length=1024, media_type="", body=sender.body(), client=sender.connection)
    )
    async with asyncio.timeout(20):
        while not up.node.load.uploads[State.WAITING]:
            await asyncio.sleep(0.001)
    if not is_upgraded:
        await client(up.store).hdel(up.store.keys.transfer(token, "x"), "hears")
    outcome = await down.download(access, name="x", wait=0, sink=receiver, client=receiver.connection)
    assert (outcome, await sending, receiver.got) == (Outcome.COMPLETE, 1024, sender.content)
    await up.context.background.wait()
    await down.context.background.wait()


async def test_a_small_transfer(redis_server: RedisServer, prefix: str, asked: list[str]) -> None:
    """A node of an earlier version is sent a wake-up that it understands, and looks into Redis by itself."""
    token, embedded = Token.new().id, fakeredis.FakeServer()
    async with (
        serving(Settings(redis_url=redis_server.url, prefix=prefix, node="up"), embedded) as up,
        serving(Settings(redis_url=redis_server.url, prefix=prefix, node="down"), embedded) as down,
    ):
        await up.store.tokens.make(token=token)
        await transfer(up, down, token, is_upgraded=False)  # from now on, Redis knows the scripts
        for is_upgraded, expected in ((True, PAIR), (False, [*PAIR[:4], "touch", *PAIR[4:]])):
            asked.clear()
            await transfer(up, down, token, is_upgraded=is_upgraded)
            assert asked == expected
