"""Assemble the server: the objects that live as long as it, and the routes of its API."""

import contextlib
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from relay.api.admission import Admission
from relay.api.exchange import Services, endpoint, is_upload, segments_of
from relay.api.request_log import RequestLog
from relay.api.routes import NAME, OPERATIONS, TOKEN, UPLOAD, handlers_of
from relay.api.upload_fields import offers
from relay.cluster.node import Node
from relay.metrics import Metrics
from relay.operations.eviction import Eviction
from relay.operations.reports import NodeCollector, Reports
from relay.server.protocol import HANGUPS, NODE, SETTINGS
from relay.server.tcp import Hangups
from relay.settings import Settings
from relay.store.store import Store
from relay.transfer.drain import Phase
from relay.transfer.relay import Relay


class TokenPaths:
    """Serve the paths of a token, of a name and of a resumable upload.

    They are chosen by the undecoded path (see `exchange.segments_of`). It is not made of Starlette's routes: their
    patterns miss paths that contain a newline.
    """

    def __init__(self, services: Services) -> None:
        self._token = endpoint(services, handlers_of(TOKEN))
        resumable = offers(services.relay.settings)
        self._name = endpoint(services, handlers_of(NAME), resumable)
        self._upload = endpoint(services, handlers_of(UPLOAD), resumable)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        name = self._upload if is_upload(scope) else self._name
        app = name if len(segments_of(scope)) > 1 else self._token
        await app(scope, receive, send)


def create_app(settings: Settings, store: Store | None = None) -> Starlette:
    """Return the ASGI application, with its `Relay` as `app.state.relay`. It closes `store`, which tests pass in."""
    metrics = Metrics()
    store = store or Store.connect(settings, metrics)
    node = Node(settings, store)
    relay = Relay(settings, store, metrics, node)
    reports = Reports(settings, store, node)
    metrics.registry.register(NodeCollector(node))
    eviction = Eviction(store, metrics)
    services = Services(relay, Admission(settings, store), reports, metrics)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[dict[str, object]]:
        async with node.running(), reports.running(), eviction.running():
            with contextlib.closing(Hangups()) as hangups:
                try:
                    yield {HANGUPS: hangups, SETTINGS: settings, NODE: node.id}
                finally:
                    relay.gate.advance(Phase.CUT)
                    await relay.context.background.wait()
        await store.aclose()

    app = Starlette(routes=_fixed_paths(services), middleware=[Middleware(RequestLog)], lifespan=lifespan)
    app.router.redirect_slashes = False
    app.router.default = TokenPaths(services)
    app.state.relay = relay
    return app


def _fixed_paths(services: Services) -> list[Route]:
    """Return a route for each path of the table that has no segment which clients choose."""
    paths = dict.fromkeys(operation.path for operation in OPERATIONS if "{" not in operation.path)
    return [Route(path, _Endpoint(endpoint(services, handlers_of(path)))) for path in paths]


class _Endpoint:
    """Wrap an ASGI app for Starlette's `Route`, which passes every method to an instance, but not to a function."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)
