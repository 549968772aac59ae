"""A tour of relay. Read it from top to bottom.

The first tests show what a client sees: two HTTP requests for the same path, one that uploads and one that
downloads. The later tests show what Redis holds meanwhile.

Everything runs in this process: one node, and the embedded store in place of a Redis server. With a real Redis and
several nodes the behaviour is the same; tests/cluster shows that.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import uvicorn

from relay.app import create_app
from relay.names import new_id
from relay.server.protocol import Protocol
from relay.settings import Settings
from relay.states import Outcome, State
from relay.transfer.relay import Relay
from tests.support.cluster import id_of
from tests.support.ports import free_port


@dataclass
class Node:
    """A running node and an HTTP client connected to it."""

    relay: Relay
    http: httpx.AsyncClient

    async def wait_for(self, token: str, name: str, state: State) -> None:
        """Wait until the name is in this state."""
        while True:
            transfer = await self.relay.store.transfers.look(token=token, name=name, use=False)
            if (transfer.state if transfer else State.FREE) is state:
                return
            await asyncio.sleep(0.01)


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    """Start a node on the embedded store, and stop it after the test."""
    port = free_port()
    app = create_app(Settings(redis_url="", node="here"))
    server = uvicorn.Server(uvicorn.Config(app, port=port, http=Protocol, ws="none", log_config=None))
    serving = asyncio.create_task(server._serve())
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
        while not server.started:
            await asyncio.sleep(0.01)
        yield Node(app.relay, client)
    server.should_exit = True
    await serving


async def test_one_uploads_and_another_downloads(node: Node) -> None:
    # A token opens a private space of names. It is a public id and a secret in one word.
    token = (await node.http.post("/token")).text.strip()

    # An upload claims a name and waits for a downloader. It gets its response only after the downloader has
    # received the last byte.
    upload = asyncio.create_task(node.http.put(f"/{token}/hello.txt", content=b"hello, world"))
    await node.wait_for(id_of(token), "hello.txt", State.WAITING)
    assert not upload.done()

    # A download of the same path receives the bytes. Then the name is free again.
    download = await node.http.get(f"/{token}/hello.txt")
    assert download.text == "hello, world"
    assert (await upload).text == "delivered 12 bytes\n"
    await node.wait_for(id_of(token), "hello.txt", State.FREE)


async def test_either_side_may_come_first(node: Node) -> None:
    token = (await node.http.post("/token")).text.strip()

    # The download may come first, too. It waits for an upload: 2 seconds, unless `wait` says otherwise.
    download = asyncio.create_task(node.http.get(f"/{token}/x?wait=30"))
    assert (await node.http.put(f"/{token}/x", content=b"data")).status_code == 200
    assert (await download).content == b"data"


async def test_an_error_says_what_to_do(node: Node) -> None:
    token = (await node.http.post("/token")).text.strip()

    # An error is one line of text that tells the client what to do next.
    answer = await node.http.get(f"/{token}/x?wait=0")
    assert answer.status_code == 404
    assert answer.text == "Nobody is uploading this name: start the upload, or wait longer with ?wait=SECONDS.\n"


async def test_what_redis_holds_while_a_transfer_runs(node: Node) -> None:
    # This is one transfer again, step by step, as two nodes would do it: the uploader is on node "a" and the
    # downloader on node "b". Each step is one call of the store.
    store = node.relay.store
    redis: Any = store.commands.redis
    token = await node.relay.make_token()

    # The uploader's node claims the name. One hash records which node holds it, and what the transfer is doing.
    transfer = store.transfers.identify(token=token.id, name="x", transfer_id=new_id())
    await store.transfers.claim(transfer, node="a", length=10, media_type="text/plain", use=True)
    assert await redis.hget(transfer.keys.transfer, "state") == b"waiting"

    # The downloader's node joins. From now on the transfer has two Redis streams, one for each direction.
    await store.transfers.join(transfer, joiner=new_id(), node="b")
    assert await redis.hget(transfer.keys.transfer, "downloader") == b"b"

    # Chunks go from the uploader's node to the downloader's. An entry's ID is the byte offset after its chunk, so
    # Redis refuses to add the same chunk twice. A node may therefore repeat a write, as here, if it got no reply.
    await store.transfers.stream(transfer).append([b"01234"], offset=5)
    await store.transfers.stream(transfer).append([b"01234"], offset=5)
    await store.transfers.stream(transfer).append([b"56789"], offset=10)
    assert [entry_id for entry_id, _ in await redis.xrange(transfer.keys.chunks)] == [b"5-0", b"10-0"]

    # Acknowledgements go the other way, and Redis deletes acknowledged chunks at once. The uploader's node may be at
    # most one window and one chunk ahead of the acknowledgements, so Redis never holds more of a transfer than that.
    await store.transfers.stream(transfer).read(position=5, acknowledge=True, count=1, timeout=1)
    assert [entry_id for entry_id, _ in await redis.xrange(transfer.keys.chunks)] == [b"10-0"]
    assert [entry_id for entry_id, _ in await redis.xrange(transfer.keys.acks)] == [b"5-0"]

    # The call that ends a transfer frees its name in the same step, and writes the outcome at the end of both
    # streams, where the other node reads it.
    await store.transfers.end(transfer, Outcome.CANCELLED)
    assert not await redis.exists(transfer.keys.transfer)
    (entry,) = await store.transfers.stream(transfer).read(position=10, acknowledge=False, count=1, timeout=1)
    assert entry.outcome is Outcome.CANCELLED


async def test_everything_in_redis_expires(node: Node) -> None:
    token = await node.relay.make_token()
    upload = asyncio.create_task(node.http.put(f"/{token}/x", content=b"data"))

    # Every key has a TTL, even while an upload waits. If every node died now, Redis would delete all keys by itself.
    await node.wait_for(token.id, "x", State.WAITING)
    redis = node.relay.store.commands.redis
    keys = [key async for key in redis.scan_iter()]
    assert len(keys) >= 4
    for key in keys:
        assert await redis.ttl(key) > 0
    await node.http.get(f"/{token}/x")
    await upload
