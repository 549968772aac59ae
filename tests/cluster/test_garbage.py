"""A client that has left is freed at once: nothing of it is in a reference cycle.

So the garbage collector hardly has to run, and `relay.server.run` has it run seldom. It would take a tenth of the CPU
time, and stop the node for seconds while thousands of uploads wait.
"""

import asyncio
import contextlib
import gc
import re
import threading
from collections import Counter
from collections.abc import Callable

import pytest
import uvicorn
import uvloop

from relay.app import create_app
from relay.server.protocol import Protocol
from relay.settings import Settings
from tests.support.crowd import request
from tests.support.ports import free_port
from tests.support.raw import Raw, raw
from tests.support.redis import RedisServer
from tests.support.wait import wait_until

#: How many clients come and leave.
CLIENTS = 10
BODY = b"x" * 300_000


class Clients:
    """Clients of one node, of which each flow uses one or two."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.token = self.ask("POST", "/token").split()[-1].decode()

    def sent(
        self, method: str, path: str, body: bytes = b"", **headers: object
    ) -> contextlib.AbstractContextManager[Raw]:
        """Send a request, and yield the connection."""
        return raw(self._url, request(method, path, **{"Connection": "close"} | headers) + body)

    def ask(self, method: str, path: str, body: bytes = b"", **headers: object) -> bytes:
        """Return the whole response to a request."""
        with self.sent(method, path, body, **headers) as client:
            return client.rest()

    def until(self, path: str, state: bytes) -> None:
        """Wait until a name is in a state."""
        wait_until(lambda: b"relay-state: " + state in self.ask("HEAD", path), f"a name to be {state!r}")


def small(clients: Clients, path: str) -> None:
    with clients.sent("PUT", path, b"small", Content_Length=5) as upload:
        assert clients.ask("GET", path).endswith(b"small")
        assert b" 200 " in upload.rest()


def large(clients: Clients, path: str) -> None:
    with clients.sent("PUT", path, Content_Length=len(BODY)) as upload:
        sending = threading.Thread(target=upload.send, args=(BODY,))
        sending.start()
        assert clients.ask("GET", path).endswith(BODY)
        sending.join()
        assert b" 200 " in upload.rest()


def uploader_leaves(clients: Clients, path: str) -> None:
    with clients.sent("PUT", path, Content_Length=5):
        clients.until(path, b"waiting")


def downloader_leaves(clients: Clients, path: str) -> None:
    with clients.sent("PUT", path, BODY, Content_Length=2 * len(BODY)):
        with clients.sent("GET", path) as download:
            download.read()
        clients.until(path, b"waiting")


def cancelled(clients: Clients, path: str) -> None:
    with clients.sent("PUT", path, Content_Length=5) as upload:
        clients.until(path, b"waiting")
        clients.ask("DELETE", path)
        assert b" 410 " in upload.rest()


def refused(clients: Clients, path: str) -> None:
    assert b" 404 " in clients.ask("GET", path + "?wait=0")


def resumable(clients: Clients, path: str) -> None:
    created = clients.ask("PUT", path, Upload_Complete="?0", Content_Length=0)
    address = re.findall(rb"(?i)location: (?:http://[^/]*)?(.*)\r", created)[-1].decode()
    headers = {"Upload_Complete": "?1", "Upload_Offset": 0, "Content_Type": "application/partial-upload"}
    with clients.sent("PATCH", address, b"small", Content_Length=5, **headers) as upload:
        assert b"small" in clients.ask("GET", path)
        assert b" 200 " in upload.rest()


def sent_ahead(clients: Clients, path: str) -> None:
    """Requests wait behind one that waits, and their client leaves."""
    with clients.sent("GET", path + "?wait=20", request("GET", path) * 2, Connection="keep-alive"):
        clients.ask("GET", "/healthz")


@pytest.mark.parametrize(
    "flow",
    [small, large, uploader_leaves, downloader_leaves, cancelled, refused, resumable, sent_ahead],
    ids=lambda flow: flow.__name__,
)
def test_nothing_is_left_for_the_garbage_collector(
    redis_server: RedisServer, prefix: str, flow: Callable[[Clients, str], None]
) -> None:
    settings = Settings(redis_url=redis_server.url, prefix=prefix, rejoin_wait=20)
    assert uvloop.run(left_by(flow, settings)) == Counter()


async def left_by(flow: Callable[[Clients, str], None], settings: Settings) -> Counter[str]:
    """Return the objects of our own that a node leaves in reference cycles after some clients, by type."""
    port = free_port()
    app = create_app(settings)
    server = uvicorn.Server(
        uvicorn.Config(app, port=port, http=Protocol, ws="none", lifespan="on", access_log=False, log_config=None)
    )
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    clients = await asyncio.to_thread(Clients, f"http://127.0.0.1:{port}")

    async def come(number: int) -> None:
        await asyncio.to_thread(flow, clients, f"/{clients.token}/{number}")
        while server.server_state.connections or len(asyncio.all_tasks()) > at_rest:
            await asyncio.sleep(0.01)

    at_rest = len(asyncio.all_tasks())
    gc.disable()
    try:
        await come(-1)  # what is made once is no garbage
        gc.collect()
        for number in range(CLIENTS):
            await come(number)
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        return Counter(type(each).__name__ for each in gc.garbage if type(each).__module__.startswith("relay"))
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
        server.should_exit = True
        await serving
