"""Puts it together: the addresses, and what lives as long as the server."""

import contextlib
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from relay.api import health, tokens, transfers
from relay.api.exchange import Handler, endpoint, segments_of
from relay.api.request_log import RequestLog
from relay.api.status import Operator
from relay.cluster.node import Node
from relay.metrics import Metrics
from relay.operations.reports import NodeCollector, Reports
from relay.server.protocol import HANGUPS, NODE, SETTINGS
from relay.server.tcp import Hangups
from relay.settings import Settings
from relay.store.store import Store
from relay.transfer.drain import Phase
from relay.transfer.relay import Relay


class Front:
    """Sends a request to a token's or a name's handlers, by the undecoded path (see `Exchange.segments`)."""

    def __init__(self, relay: Relay) -> None:
        self._token = endpoint(relay, {"GET": tokens.show_token, "DELETE": tokens.revoke_token})
        self._name = endpoint(
            relay,
            {
                "PUT": transfers.upload,
                "POST": transfers.upload,
                "GET": transfers.download,
                "HEAD": transfers.head,
                "DELETE": transfers.cancel,
            },
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._name if len(segments_of(scope)) > 1 else self._token
        await app(scope, receive, send)


def create_app(settings: Settings, store: Store | None = None) -> Starlette:
    """The ASGI application.  `app.state.relay` is its `Relay`.  `store` is for tests; it is closed too."""
    metrics = Metrics()
    store = store or Store.connect(settings, metrics)
    node = Node(settings, store)
    relay = Relay(settings, store, metrics, node)
    reports = Reports(settings, store, node)
    metrics.registry.register(NodeCollector(node))
    operator = Operator(settings, reports)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[dict[str, object]]:
        async with node.running(), reports.running():
            with contextlib.closing(Hangups()) as hangups:
                try:
                    yield {HANGUPS: hangups, SETTINGS: settings, NODE: node.id}
                finally:
                    relay.gate.advance(Phase.CUT)
                    await relay.context.background.wait()
        await store.aclose()

    def route(path: str, methods: dict[str, Handler]) -> Route:
        return Route(path, _App(endpoint(relay, methods)))

    app = Starlette(
        routes=[
            route("/", {"GET": operator.show_status, "HEAD": operator.show_status}),
            route("/metrics", {"GET": operator.show_metrics, "HEAD": operator.show_metrics}),
            route("/token", {"POST": tokens.make_token}),
            route("/healthz", {"GET": health.healthz, "HEAD": health.healthz}),
            route("/readyz", {"GET": health.readyz, "HEAD": health.readyz}),
            route("/openapi.json", {"GET": health.openapi}),
            *(route(path, {"GET": health.not_found}) for path in ("/favicon.ico", "/robots.txt")),
        ],
        middleware=[Middleware(RequestLog)],
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    app.router.default = Front(relay)  # not a Route: its pattern would miss paths with a newline
    app.state.relay = relay
    return app


class _App:
    """An ASGI app as Starlette's `Route` wants one: an instance, not a function, gets every method."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)
