"""Puts it together: the addresses, and what lives as long as the server."""

import contextlib
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from relay import http
from relay.exchange import Handler, endpoint, segments_of
from relay.logs import RequestLog
from relay.nodes import Node
from relay.operator import Operator
from relay.protocol import HANGUPS, NODE, SETTINGS
from relay.reports import NodeCollector, Reports
from relay.service import Relay
from relay.settings import Settings
from relay.store import Store
from relay.tcp import Hangups
from relay.work import Phase


class Front:
    """Sends a request to a token's or a name's handlers, by the undecoded path (see `Exchange.segments`)."""

    def __init__(self, relay: Relay) -> None:
        self._token = endpoint(relay, {"GET": http.show_token, "DELETE": http.revoke_token})
        self._name = endpoint(
            relay,
            {
                "PUT": http.upload,
                "POST": http.upload,
                "GET": http.download,
                "HEAD": http.head,
                "DELETE": http.cancel,
            },
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._name if len(segments_of(scope)) > 1 else self._token
        await app(scope, receive, send)


def create_app(settings: Settings, store: Store | None = None) -> Starlette:
    """The ASGI application.  `app.state.relay` is its `Relay`.  `store` is for tests; it is closed too."""
    store = store or Store.connect(settings)
    node = Node(settings, store)
    relay = Relay(settings, store, node)
    reports = Reports(settings, store, node)
    store.metrics.registry.register(NodeCollector(node))
    operator = Operator(settings, reports)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[dict[str, object]]:
        async with node.running(), reports.running():
            with contextlib.closing(Hangups()) as hangups:
                try:
                    yield {HANGUPS: hangups, SETTINGS: settings, NODE: node.id}
                finally:
                    relay.advance(Phase.CUT)
                    await relay.finish()
        await store.aclose()

    def route(path: str, methods: dict[str, Handler]) -> Route:
        return Route(path, _App(endpoint(relay, methods)))

    app = Starlette(
        routes=[
            route("/", {"GET": operator.show_status, "HEAD": operator.show_status}),
            route("/metrics", {"GET": operator.show_metrics, "HEAD": operator.show_metrics}),
            route("/token", {"POST": http.make_token}),
            route("/healthz", {"GET": http.healthz, "HEAD": http.healthz}),
            route("/readyz", {"GET": http.readyz, "HEAD": http.readyz}),
            route("/openapi.json", {"GET": http.openapi}),
            *(route(path, {"GET": http.not_found}) for path in ("/favicon.ico", "/robots.txt")),
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
