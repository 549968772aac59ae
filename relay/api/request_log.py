"""TODO."""

import logging
import re
import time
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from relay.logs import about_request, fields
from relay.names import new_id

log = logging.getLogger("relay.request")

#: An X-Request-ID that is taken over: UUIDs, trace ids, whatever a balancer counts with.
_SANE = re.compile(r"[A-Za-z0-9._-]{1,64}")


#: What balancers and Prometheus ask for every second is not worth a line.
_ROUTINE = {"/", "/healthz", "/readyz", "/metrics"}


class RequestLog:
    """ASGI middleware: every request has an id, its client's or a new one, and a line when it is over."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request, status, begun = _request_id(scope), 0, time.monotonic()

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request.encode())]
            await send(message)

        about: dict[str, Any] = {"request": request}
        before = about_request.set(about)
        try:
            await self._app(scope, receive, send_with_id)
        finally:
            is_routine = scope["path"] in _ROUTINE and status != 401  # noqa: PLR2004 (somebody tries secrets)
            level = logging.DEBUG if is_routine else logging.INFO
            seconds = round(time.monotonic() - begun, 3)
            answer = {"status": status} if status else {"left": True}
            log.log(level, "answered", extra=fields(method=scope["method"], **answer, seconds=seconds))
            about_request.reset(before)


def _request_id(scope: Scope) -> str:
    given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"").decode("latin-1")
    return given if _SANE.fullmatch(given) else new_id()
