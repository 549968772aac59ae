"""The app as a server sees it, message by message: what is read, what is sent, and when."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from starlette.types import Message

from relay.access import Token
from relay.app import App, create_app
from relay.server.connection import Connection
from relay.settings import Settings
from relay.states import State
from tests.support.cluster import id_of


class Call:
    """One request to the app, whose body and connection the test has in its hands."""

    def __init__(self, app: App, method: str, path: str, **headers: str) -> None:
        self.sent: list[Message] = []
        self.connection = Connection()
        self.reads = 0
        self._body: asyncio.Queue[Message] = asyncio.Queue()
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()],
            "extensions": {"relay.connection": self.connection},
        }
        self.task = asyncio.create_task(app(scope, self._receive, self._send))

    def send_body(self, data: bytes, *, more: bool) -> None:
        self._body.put_nowait({"type": "http.request", "body": data, "more_body": more})

    def disconnect(self) -> None:
        self._body.put_nowait({"type": "http.disconnect"})
        self.connection.lost(None)

    @property
    def status(self) -> int | None:
        return next((message["status"] for message in self.sent if message["type"] == "http.response.start"), None)

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)

    @property
    def complete(self) -> bool:
        return bool(self.sent) and "body" in self.sent[-1] and not self.sent[-1].get("more_body", False)

    async def end(self) -> None:
        await asyncio.wait_for(self.task, 20)

    async def _receive(self) -> Message:
        self.reads += 1
        return await self._body.get()

    async def _send(self, message: Message) -> None:
        self.sent.append(message)


@pytest.fixture
async def app() -> AsyncIterator[App]:
    app = create_app(Settings(redis_url="", node="here", upload_wait=5, rejoin_wait=0))
    async with app.router.lifespan_context(app):
        yield app


@pytest.fixture
async def token(app: App) -> str:
    token: Token = await app.relay.make_token()
    return str(token)


async def reach(app: App, token: str, state: State) -> None:
    async with asyncio.timeout(20):
        while True:
            transfer = await app.relay.store.transfers.look(token=id_of(token), name="x", use=False)
            if (transfer.state if transfer else State.FREE) is state:
                return
            await asyncio.sleep(0.005)


async def stream(app: App, token: str, upload: Call) -> Call:
    """Return a download that has received `data` from the upload, of which more is to come."""
    await reach(app, token, State.WAITING)
    download = Call(app, "GET", f"/{token}/x")
    upload.send_body(b"data", more=True)
    while b"data" not in download.body:
        await asyncio.sleep(0.005)
    return download


async def left_over(app: App) -> list[Any]:
    return [key async for key in app.relay.store.commands.redis.scan_iter("relay:[tca][rhc][ak]*:*x*")]


async def test_nothing_of_the_body_is_read_before_a_downloader_is_there(app: App, token: str) -> None:
    """The first receive() is what sends 100 Continue."""
    upload = Call(app, "PUT", f"/{token}/x", content_length="4")
    await reach(app, token, State.WAITING)
    assert upload.reads == 0
    download = Call(app, "GET", f"/{token}/x")
    upload.send_body(b"data", more=False)
    await download.end()
    await upload.end()
    assert (download.status, download.body, download.complete) == (200, b"data", True)
    assert (upload.status, upload.complete) == (200, True)
    assert not await left_over(app)


async def test_an_uploader_that_leaves_while_waiting_is_noticed_without_reading(app: App, token: str) -> None:
    upload = Call(app, "PUT", f"/{token}/x", content_length="4")
    await reach(app, token, State.WAITING)
    upload.disconnect()
    await upload.end()
    assert upload.reads == 0
    assert upload.sent == []
    await reach(app, token, State.FREE)
    assert not await left_over(app)


@pytest.mark.parametrize("length", ["9", None])
async def test_a_broken_upload_never_completes_the_download(app: App, token: str, length: str | None) -> None:
    upload = Call(
        app, "PUT", f"/{token}/x", **({"content_length": length} if length else {"transfer_encoding": "chunked"})
    )
    download = await stream(app, token, upload)
    upload.disconnect()
    await upload.end()
    await download.end()
    assert download.body == b"data"
    assert not download.complete
    assert upload.sent == []
    assert not await left_over(app)


async def test_a_downloader_that_leaves_is_424_to_an_uploader_without_a_length(app: App, token: str) -> None:
    upload = Call(app, "PUT", f"/{token}/x", transfer_encoding="chunked")
    download = await stream(app, token, upload)
    download.disconnect()
    await download.end()
    while upload.status is None:
        await asyncio.sleep(0.005)
    upload.send_body(b"", more=False)  # the rest of the body, read and thrown away
    await upload.end()
    assert upload.status == 424  # 502, but it may come from a pipe
    assert b"after 4 bytes" in upload.body
    assert upload.complete
    assert not await left_over(app)


async def test_an_upload_that_is_gone_before_its_first_byte_does_not_end_the_download(app: App, token: str) -> None:
    """Its headers were not sent yet, so the next upload of the name is served."""
    upload = Call(app, "PUT", f"/{token}/x", content_length="4")
    await reach(app, token, State.WAITING)
    download = Call(app, "GET", f"/{token}/x")
    await reach(app, token, State.STREAMING)
    upload.disconnect()
    await upload.end()
    second = Call(app, "PUT", f"/{token}/x", content_length="4")
    second.send_body(b"next", more=False)
    await download.end()
    await second.end()
    assert (download.status, download.body, download.complete) == (200, b"next", True)


async def test_the_rest_of_a_refused_body_is_read_within_bounds(app: App) -> None:
    upload = Call(app, "PUT", f"/{'A' * 30}/x", transfer_encoding="chunked")
    for _ in range(100):
        upload.send_body(b"x" * 1024 * 1024, more=True)
    await upload.end()
    assert upload.status == 401
    assert upload.complete
    assert upload.reads < 12


async def test_cancelled_tasks_leave_nothing(app: App, token: str) -> None:
    """A server that shuts down cancels requests and does not wait for them."""
    upload = Call(app, "PUT", f"/{token}/x", content_length="4")
    await reach(app, token, State.WAITING)
    download = Call(app, "GET", f"/{token}/x")
    await reach(app, token, State.STREAMING)
    for call in (upload, download):
        call.task.cancel()
    await asyncio.gather(upload.task, download.task, return_exceptions=True)
    await app.relay.context.background.wait()
    await reach(app, token, State.FREE)
    assert not await left_over(app)
