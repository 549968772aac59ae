"""Assemble the server: the objects that live as long as it, and the routes of its API."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable

from starlette.routing import Router
from starlette.types import ASGIApp, Receive, Scope, Send

from relay.api.admission import Admission
from relay.api.exchange import Services, endpoint, is_link, is_upload, segments_of
from relay.api.request_log import RequestLog
from relay.api.routes import ASSET, LINK, NAME, OPERATIONS, TOKEN, UPLOAD, handlers_of
from relay.api.upload_fields import offers
from relay.cluster.node import Node
from relay.metrics import Metrics
from relay.operations import telemetry
from relay.operations.eviction import Eviction
from relay.operations.reports import NodeCollector, Reports
from relay.server.protocol import HANGUPS, NODE, SETTINGS
from relay.server.tcp import Hangups
from relay.settings import Settings
from relay.store.store import Store
from relay.tasks import report_unhandled
from relay.tracing import Spans
from relay.transfer.drain import Phase
from relay.transfer.relay import Relay


class Paths:
    """Serve every path of the table.

    The paths of a token, of a name and of a resumable upload are told by the undecoded path (see
    `exchange.segments_of`). This is not made of Starlette's routes: it would try them all before such a path, and their
    patterns miss paths that contain a newline.
    """

    def __init__(self, services: Services) -> None:
        fixed = {operation.path for operation in OPERATIONS if "{" not in operation.path}
        self._fixed = {path: endpoint(services, handlers_of(path)) for path in fixed}
        self._token = endpoint(services, handlers_of(TOKEN))
        resumable = offers(services.relay.settings)
        self._name = endpoint(services, handlers_of(NAME), resumable)
        self._upload = endpoint(services, handlers_of(UPLOAD), resumable)
        self._link = endpoint(services, handlers_of(LINK))
        self._asset = endpoint(services, handlers_of(ASSET))

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        app = self._fixed.get(scope["path"]) or self._below_token(scope, segments_of(scope))
        return app(scope, receive, send)

    def _below_token(self, scope: Scope, segments: list[bytes]) -> ASGIApp:
        """Return what serves a path whose segments clients choose."""
        count = len(segments)
        if count == 1:
            return self._token
        if count == 2:  # noqa: PLR2004 (token, name)
            return self._asset if segments[0] == b"page" else self._name  # "page" cannot be a token
        if is_link(segments):
            return self._link
        # A name has no PATCH, so that is meant for an upload, although its address is wrong.
        is_part = scope["method"] == "PATCH" and count == 3  # noqa: PLR2004 (token, name, upload)
        return self._upload if is_part or is_upload(segments) else self._name


class App(RequestLog):
    """A node as an ASGI application. Requests go straight to `Paths`; Starlette's router runs the lifespan."""

    def __init__(self, relay: Relay, paths: Paths, router: Router, spans: Spans | None) -> None:
        super().__init__(paths, router, spans)
        self.relay = relay
        self.router = router


def create_app(settings: Settings, store: Store | None = None, *, redis_url: str | None = None) -> App:
    """Return the ASGI application, with its `Relay` as `app.relay`.

    `store`: tests pass it in; the application closes it. `redis_url`: where Redis is, if the settings do not say it.
    """
    metrics = Metrics()
    where = settings if redis_url is None else settings.model_copy(update={"redis_url": redis_url})
    store = store or Store.connect(where, metrics)
    node = Node(settings, store)
    relay = Relay(settings, store, metrics, node)
    reports = Reports(settings, store, node)
    metrics.registry.register(NodeCollector(node))
    eviction = Eviction(store, metrics)
    admission = Admission(settings, store)
    services = Services(relay, admission, reports, metrics)
    spans = telemetry.start(os.environ, node.id)

    @contextlib.asynccontextmanager
    async def lifespan(_: object) -> AsyncIterator[dict[str, object]]:
        asyncio.get_running_loop().set_exception_handler(report_unhandled)
        async with node.running(), reports.running(), eviction.running(), admission.running():
            with contextlib.closing(Hangups()) as hangups:
                try:
                    yield {HANGUPS: hangups, SETTINGS: settings, NODE: node.id}
                finally:
                    relay.gate.advance(Phase.CUT)
                    await relay.context.background.wait()
        await store.aclose()
        if spans is not None:
            spans.close()

    return App(relay, Paths(services), Router(lifespan=lifespan), spans)
