"""Thousands of clients on one node: what each costs, that each is served, and that they leave nothing behind.

With `RELAY_TEST_FULL=1` in the environment, there are 10,000 waiting uploads, 10,000 interrupted ones and 1,000
streams; otherwise fewer.
"""

import asyncio
import contextlib
import http.client
import os
import random
import secrets
import selectors
import signal
import socket
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any, cast

import fakeredis
import httpx
import psutil
import pytest

from relay.buffers import CHUNK
from relay.cluster.node import RECHECK
from relay.errors import Problem, StoreUnavailable
from relay.names import new_id
from relay.settings import Settings
from relay.states import Outcome, State
from relay.store.records import Abandoned, Farewell, Final, Inquiry
from relay.store.store import Store
from tests.support.cluster import Cluster, NodeProcess
from tests.support.crowd import Selection, crowd, need_descriptors, read_until, request
from tests.support.redis import RedisServer, newest
from tests.support.sides import Downloader, Uploader, serving
from tests.support.wait import wait_until

FULL = bool(os.environ.get("RELAY_TEST_FULL"))
UPLOADS, STREAMS = (10_000, 1_000) if FULL else (2_000, 200)
#: How long the idle node is watched, in seconds (each waiting upload checks Redis every 30 s), and the number of rounds
#: of the streams.
WATCHED, ROUNDS = (35, 20) if FULL else (5, 5)
#: How long an interrupted transfer waits for its uploader, in seconds: longer than it takes to make all of them.
RESUME_WAIT = 120 if FULL else 20
KIB = 1024
#: Sizes in bytes, so small that 1,000 full windows fit into the memory of any machine.
SMALL = {"chunk": 16 * KIB, "window": 64 * KIB}
#: Maximum number of connections to Redis for commands, and of those that a node needs for heartbeats and its inbox.
CONNECTIONS, OWN = 64, 4


@pytest.fixture
def crowded(redis_server: RedisServer) -> Iterator[Cluster]:
    need_descriptors(2 * UPLOADS)
    prefix = f"many-{secrets.token_hex(4)}"
    settings = {"prefix": prefix, "redis_commands": CONNECTIONS, "resume_wait": RESUME_WAIT, **SMALL}
    cluster = Cluster([NodeProcess(prefix, redis_server.url, settings)], redis_server.client(), prefix)
    assert cluster[0].id  # the id is cached; ask for it before the node is busy
    yield cluster
    cluster.wait_clean(60)
    cluster.stop()
    assert " WARNING " not in cluster.logs()
    assert " ERROR " not in cluster.logs()


def holding(cluster: Cluster, state: str) -> int:
    """Return how many transfers the node holds in that state, by its last heartbeat."""
    assert cluster.redis is not None
    return int(cluster.redis.hget(f"{cluster.prefix}:node:{cluster[0].id}", state) or 0)


def connections(cluster: Cluster) -> int:
    """Return how many connections to Redis the node has."""
    assert cluster.redis is not None
    clients: list[dict[str, str]] = cluster.redis.client_list()
    return sum(client["name"] == cluster[0].name for client in clients)


def transfers(cluster: Cluster) -> int:
    return sum(1 for _ in cluster.keys("transfer"))


def test_uploads_that_wait(crowded: Cluster) -> None:
    node, process = crowded[0], psutil.Process(crowded[0].process.pid)
    tokens = [crowded.token() for _ in range(10)]
    paths = [f"/{tokens[index % 10]}/{index}" for index in range(UPLOADS)]
    requests = [request("PUT", path, Content_Length=5, Expect="100-continue") for path in paths]
    before, open_before = node.rss(), process.num_fds()
    peaks, left = [], []

    for _ in range(2):
        with crowd(node.port, requests) as uploads:
            wait_until(lambda: holding(crowded, "waiting") == UPLOADS, "all to wait", timeout=120)
            peaks.append(node.rss())
            each = (peaks[-1] - before) / UPLOADS
            assert each < 40 * KIB
            assert connections(crowded) <= CONNECTIONS + OWN
            if len(peaks) == 1:
                status = status_page(node)
                share = cpu_share(process)
                assert share < 0.1
                slowest = max(
                    serve(node.port, paths[index], uploads[index]) for index in random.sample(range(UPLOADS), 20)
                )
        gone = time.monotonic()
        wait_until(lambda: not transfers(crowded), "all names to be free", timeout=120)
        gone = time.monotonic() - gone
        left.append(node.rss())
        wait_until(lambda: process.num_fds() <= open_before + CONNECTIONS + OWN, "the descriptors to be closed")

    # Python keeps much of the memory that it has freed. So the second crowd must fit into what the first one left.
    assert left[1] - before < 1.1 * (max(peaks[0], left[0]) - before) + 10 * KIB * KIB
    print(f"{UPLOADS} uploads: {each / KIB:.1f} KiB each, {share:.1%} of a core, {connections(crowded)} connections")
    print("the status page:", status)
    memory = [size // KIB**2 for size in (before, peaks[0], left[0], peaks[1], left[1])]
    print("MiB before, with and after the first crowd, with and after the second:", *memory)
    print(f"slowest of 20 served in {slowest * 1000:.0f} ms; all names free {gone:.1f} s after all left at once")


def status_page(node: NodeProcess) -> str:
    """Return how large the page with the tables is, and how long it takes. It does not grow with what it tells of."""
    begun = time.monotonic()
    page = httpx.get(node.url, headers={"accept": "text/html"})
    seconds = time.monotonic() - begun
    assert f"<dd>{UPLOADS}</dd>" in page.text
    assert len(page.content) < 200 * KIB
    return f"{len(page.content) / KIB:.0f} KiB in {seconds * 1000:.0f} ms"


def cpu_share(process: psutil.Process) -> float:
    """Return the share of one core that the process uses over the next `WATCHED` seconds."""
    begun, before = time.monotonic(), sum(process.cpu_times()[:2])
    time.sleep(WATCHED)
    return (sum(process.cpu_times()[:2]) - before) / (time.monotonic() - begun)


def serve(port: int, path: str, upload: socket.socket) -> float:
    """Download what one of the crowd uploads. Return the seconds from the request until both sides have ended."""
    begun = time.monotonic()
    with crowd(port, [request("GET", path)]) as (download,):
        assert read_until(upload, b"\r\n\r\n").startswith(b"HTTP/1.1 100 ")
        upload.sendall(b"bytes")
        assert read_until(download, b"\r\n\r\nbytes").startswith(b"HTTP/1.1 200 ")
    assert read_until(upload, b"delivered 5 bytes\n").startswith(b"HTTP/1.1 200 ")
    return time.monotonic() - begun


def test_transfers_that_are_interrupted(crowded: Cluster) -> None:
    """One client makes them without a body, over one connection, and does not return."""
    node, process = crowded[0], psutil.Process(crowded[0].process.pid)
    tokens = [crowded.token() for _ in range(10)]
    before, open_before = node.rss(), process.num_fds()
    client = http.client.HTTPConnection("127.0.0.1", node.port)
    for index in range(UPLOADS):
        create(client, f"/{tokens[index % 10]}/{index}")
    client.close()
    wait_until(lambda: holding(crowded, "interrupted") == UPLOADS, "all to be interrupted")
    each = (node.rss() - before) / UPLOADS
    assert each < 20 * KIB
    assert connections(crowded) <= CONNECTIONS + OWN
    assert process.num_fds() <= open_before + CONNECTIONS + OWN
    share = cpu_share(process)
    assert share < 0.1
    wait_until(lambda: not transfers(crowded), "all to be given up", timeout=RESUME_WAIT + 60)
    wait_until(lambda: holding(crowded, "interrupted") == 0, "the node to hold none of them any more")
    assert node.log().count("outcome=uploader_gone") == UPLOADS
    for path in (f"/{tokens[0]}/0", f"/{tokens[(UPLOADS - 1) % 10]}/{UPLOADS - 1}"):
        create(client, path)
        client.request("DELETE", path)
        answer = client.getresponse()
        assert (answer.status, answer.read()) == (204, b"")
    client.close()
    memory = f"{each / KIB:.1f} KiB each"
    print(f"{UPLOADS} interrupted: {memory}, {share:.1%} of a core, {connections(crowded)} connections")


def create(client: http.client.HTTPConnection, path: str) -> None:
    """Make a resumable upload whose bytes are to come in later requests."""
    client.request("PUT", path, headers={"Upload-Complete": "?0", "Content-Length": "0"})
    answer = client.getresponse()
    assert (answer.status, answer.read()) == (201, b"")


def test_streams_that_trickle(crowded: Cluster) -> None:
    """Each stream carries 1 KiB per second. A round begins only when every stream has moved, so none can starve."""
    node, token = crowded[0], crowded.token()
    before = node.rss()
    payload = random.Random(1).randbytes(ROUNDS * KIB)
    puts = [request("PUT", f"/{token}/{index}", Content_Length=len(payload)) for index in range(STREAMS)]
    gets = [request("GET", f"/{token}/{index}?wait=60") for index in range(STREAMS)]
    with crowd(node.port, puts) as uploads, crowd(node.port, gets) as downloads:
        readable, slowest = Selection(downloads, selectors.EVENT_READ), 0.0
        got = [bytearray() for _ in downloads]
        for number in range(ROUNDS):
            begun = time.monotonic()
            for upload in uploads:
                upload.sendall(payload[number * KIB : (number + 1) * KIB])
            behind = set(range(STREAMS))
            while behind:
                for index, download in readable.ready(30) or pytest.fail(f"{len(behind)} streams starve"):
                    got[index] += download.recv(64 * KIB)
                    if len(body(got[index])) >= (number + 1) * KIB:
                        behind.discard(index)
            took = time.monotonic() - begun
            slowest = max(slowest, took)
            time.sleep(max(0.0, 1 - took))
        readable.close()
        each = (node.rss() - before) / STREAMS
        assert all(body(one) == payload for one in got)
        for download in downloads:
            download.close()
        assert all(
            read_until(upload, b"bytes\n").endswith(f"delivered {len(payload)} bytes\n".encode()) for upload in uploads
        )
    print(f"{STREAMS} streams: slowest round {slowest:.2f} s, {each / KIB:.0f} KiB of memory each")


def body(response: bytearray) -> bytearray:
    """Return the part of the response's body that has arrived."""
    return response.partition(b"\r\n\r\n")[2]


def test_streams_whose_downloaders_are_slow(crowded: Cluster) -> None:
    """The uploaders send as fast as they can. Redis and the node hold no more than the window allows."""
    assert crowded.redis is not None
    node, token = crowded[0], crowded.token()
    before, rounds = node.rss(), ROUNDS
    size = 1024 * KIB * KIB
    puts = [request("PUT", f"/{token}/{index}", Content_Length=size) for index in range(STREAMS)]
    gets = [request("GET", f"/{token}/{index}?wait=60") for index in range(STREAMS)]
    chunk, piece = SMALL["chunk"], random.Random(1).randbytes(SMALL["chunk"])
    with crowd(node.port, puts) as uploads, crowd(node.port, gets, receive_buffer=4 * KIB) as downloads:
        writable, sent, taken = Selection(uploads, selectors.EVENT_WRITE), [0] * STREAMS, [0] * STREAMS
        for download in downloads:
            read_until(download, b"\r\n\r\n")
            download.setblocking(False)
        used = peak = 0
        for _ in range(rounds):
            round_ends = time.monotonic() + 1
            while (left := round_ends - time.monotonic()) > 0:
                for index, upload in writable.ready(left):
                    sent[index] += upload.send(piece[sent[index] % chunk :])
            for index, download in enumerate(downloads):
                with contextlib.suppress(BlockingIOError):
                    got = download.recv(KIB)
                    assert got == (2 * piece)[taken[index] % chunk :][: len(got)]
                    taken[index] += len(got)
            keys = list(crowded.keys("chunks"))
            assert len(keys) == STREAMS
            used = max(used, sum(crowded.redis.memory_usage(key) or 0 for key in keys))
            peak = max(peak, node.rss())
        writable.close()
        assert all(count > 0 for count in taken)
        most = SMALL["window"] + 2 * chunk  # the window, one chunk more, and as much for Redis's own bookkeeping
        assert used <= STREAMS * most
        # For each upload, the node holds two chunks and the bytes of two socket reads, one of which has not been
        # taken yet. For each download, it holds four chunks read from Redis and as many being sent. Everything else
        # may take half as much again.
        each = (peak - before) / STREAMS
        assert each < 1.5 * (2 * 256 * KIB + 2 * chunk + 8 * chunk)
    print(f"{STREAMS} streams: {used / STREAMS / KIB:.0f} KiB of Redis each, {each / KIB:.0f} KiB of the node each")


def test_what_uploads_keep_to_send_it_again_is_bounded(crowded: Cluster) -> None:
    """Each of 24 uploads has sent 9 MiB, and keeps them for its downloader to come back, as far as the node allows.

    That is 64 MiB. Python keeps the memory, so the second crowd must fit into what the first one left.
    """
    node, count, size, grown = crowded[0], 24, 9 * KIB * KIB, []
    before, piece = node.rss(), random.Random(1).randbytes(64 * KIB)
    for _ in range(2):
        token = crowded.token()
        puts = [request("PUT", f"/{token}/{index}", Content_Length=size + 1) for index in range(count)]
        gets = [request("GET", f"/{token}/{index}?wait=60") for index in range(count)]
        with crowd(node.port, puts) as uploads, crowd(node.port, gets) as downloads:
            for upload, download in zip(uploads, downloads, strict=True):
                upload.sendall(piece)
                read_until(download, b"\r\n\r\n")
                with download.makefile("rb") as reader:
                    for _ in range(size // len(piece) - 1):
                        assert reader.read(len(piece)) == piece
                        upload.sendall(piece)
                    assert reader.read(len(piece)) == piece
            grown.append((node.rss() - before) / KIB**2)
        wait_until(lambda: not transfers(crowded), "all names to be free", timeout=120)
    assert 64 < grown[0] < 1.3 * 64 + 16
    assert grown[1] < grown[0] + 16
    print(f"{count} uploads keep their last bytes: {grown[0]:.0f} MiB, and again {grown[1]:.0f} MiB")


async def test_a_lost_wake_up_only_delays_an_upload(prefix: str) -> None:
    """From time to time, the node checks Redis for all uploads that wait."""
    async with serving(Settings(prefix=prefix), fakeredis.FakeServer()) as relay:
        access, client = (await relay.make_token()).access, Uploader([b"bytes"])
        upload = asyncio.create_task(
            relay.upload(access, name="x", length=None, media_type="", body=client.body(), client=client.connection)
        )
        while not relay.node.load.uploads[State.WAITING]:
            await asyncio.sleep(0)
        await relay.store.commands.redis.delete(
            relay.store.keys.token(access.id)
        )  # as an operator would: nobody is woken
        await relay.node.recheck(time.monotonic())
        assert not (await asyncio.wait([upload], timeout=0.1))[0]
        await relay.node.recheck(time.monotonic() + RECHECK)
        with pytest.raises(Problem, match="TOKEN_GONE"):
            await asyncio.wait_for(upload, 10)


async def test_an_upload_that_its_other_side_has_abandoned_ends(prefix: str) -> None:
    async with serving(Settings(prefix=prefix), fakeredis.FakeServer()) as relay:
        access, client = (await relay.make_token()).access, Uploader([b"bytes"])
        upload = asyncio.create_task(
            relay.upload(access, name="x", length=None, media_type="", body=client.body(), client=client.connection)
        )
        while not (waiting := relay.node.load.uploads[State.WAITING]):
            await asyncio.sleep(0)
        (held,) = waiting
        topic = str(Abandoned(access.id, "x", held.transfer.id))
        assert (Inquiry.parse(topic), Farewell.parse(topic)) == (None, None), "older nodes would misread it"
        relay.node.inbox.wake(topic)
        with pytest.raises(Problem, match="STORE_LOST"):
            await asyncio.wait_for(upload, 10)


# -- the queue for Redis -------------------------------------------------------------------------------------


async def test_a_crowd_that_ends_at_once_is_served_to_the_last(redis_server: RedisServer, prefix: str) -> None:
    """The commands do not time out in the queue while Redis answers, however long the queue is. If they gave up, names
    would stay taken for minutes."""
    settings = Settings(redis_url=redis_server.url, prefix=prefix, redis_commands=1, token_names=0)
    async with connected(settings) as store:
        token = new_id()
        await store.tokens.make(token=token)
        claims = [store.transfers.identify(token=token, name=f"{i}", transfer_id=new_id()) for i in range(12_000)]
        begun = time.monotonic()
        for claim in claims:
            await store.transfers.claim(claim, node="here", length=None, media_type="", use=False)
        took = time.monotonic() - begun
    # To end them takes twice as long as to claim them, so the patience is over before the last one has its turn.
    # A busy machine is slow at both.
    async with connected(settings.model_copy(update={"transfer_patience": took})) as store:
        ends = await asyncio.gather(*(store.transfers.end(claim, Outcome.UPLOADER_GONE) for claim in claims))
    assert all(isinstance(end, Final) for end in ends)


@contextlib.asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[Store]:
    store = Store.connect(settings)
    try:
        yield store
    finally:
        await store.aclose()


async def test_many_streams_have_small_windows_each(prefix: str) -> None:
    """Each may have three chunks in Redis. The only stream of a node may have eight."""
    server, settings = fakeredis.FakeServer(), Settings(prefix=prefix, chunk=CHUNK, window=8 * CHUNK)
    uploader, downloader = Uploader([bytes(CHUNK)] * 20), Downloader()
    downloader.takes.clear()
    async with serving(settings, server) as up, serving(settings, server) as down:
        up.node.load.uploads[State.STREAMING] |= dict.fromkeys(cast(Any, range(1_000_000)))
        access = (await up.make_token()).access
        upload = asyncio.create_task(
            up.upload(access, name="x", length=None, media_type="", body=uploader.body(), client=uploader.connection)
        )
        download = asyncio.create_task(
            down.download(access, name="x", wait=60, sink=downloader, client=downloader.connection)
        )
        while up.node.load.received < 3 * CHUNK:
            await asyncio.sleep(0.001)
        assert not (await asyncio.wait([upload, download], timeout=0.2))[0]
        assert up.node.load.received == 3 * CHUNK
        downloader.takes.set()
        assert await upload == 20 * CHUNK
        assert await download is Outcome.COMPLETE
        up.node.load.uploads[State.STREAMING].clear()


async def test_a_crowd_gives_up_together_when_redis_is_away(prefix: str) -> None:
    """The calls time out together and not one after the other, which would take 200 times 0.5 s, or 100 s."""
    server = RedisServer(newest("a crowd without Redis was not tested"))
    store = Store.connect(Settings(redis_url=server.url, prefix=prefix, redis_commands=1, redis_patience=0.5))
    await store.tokens.make(token="here")
    server.process.send_signal(signal.SIGSTOP)
    try:
        async with asyncio.timeout(30):
            answers = await asyncio.gather(*(store.tokens.make(token="x") for _ in range(200)), return_exceptions=True)
    finally:
        server.process.send_signal(signal.SIGCONT)
    assert {type(answer) for answer in answers} == {StoreUnavailable}
    await store.aclose()
    server.stop()
