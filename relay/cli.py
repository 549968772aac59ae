"""`relay`: its commands, and of `serve` the settings from flags and environment, the server and its shutdown."""

import asyncio
import contextlib
import gc
import logging
import resource
import signal
import sys
from collections.abc import Iterator
from types import FrameType, NoneType
from typing import Any, get_args

import click
import uvicorn
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from uvicorn.server import HANDLED_SIGNALS

from relay import __version__
from relay.app import create_app
from relay.commands import cancel, nodes, parse_settings, ps, revoke, tokens
from relay.logs import set_up
from relay.protocol import Protocol
from relay.service import Relay
from relay.settings import Settings
from relay.work import Phase

log = logging.getLogger("relay")

#: Seconds that sides which were cut off get to tell their clients and clean up.
_GRACE = 10


def _options(command: click.Command) -> click.Command:
    """One option for each setting, so that --help, the environment and the code cannot disagree."""
    for name, field in reversed(Settings.model_fields.items()):
        command.params.insert(0, _option(name, field))
    return command


def _option(name: str, field: FieldInfo) -> click.Option:
    plain = [kind for kind in (field.annotation, *get_args(field.annotation)) if kind is not NoneType]
    default = "" if field.default is PydanticUndefined else f"{field.default!s}"
    note = f" [default: {default}]" if default else ""
    return click.Option(
        ["--" + name.replace("_", "-")],
        help=f"{field.description}{note} [RELAY_{name.upper()}]",
        metavar={int: "INTEGER", float: "SECONDS"}.get(plain[0], "TEXT") if plain else "TEXT",
    )


@click.group()
@click.version_option(__version__, prog_name="relay")
def main() -> None:
    """An HTTP streaming relay that scales out."""


for command in (ps, nodes, tokens, cancel, revoke):
    main.add_command(command)


@_options
@main.command(context_settings={"max_content_width": 110})
def serve(**flags: str | None) -> None:
    """Runs one node.

    Every option is an environment variable too; a flag wins over it. Times are in seconds, sizes in bytes.
    """
    settings = parse_settings(flags)
    set_up(level=settings.log_level, form=settings.log_format)
    _allow_descriptors()
    app = create_app(settings)
    if settings.redis_url:
        log.info("node %s, version %s", app.state.relay.node.id, __version__)
    else:
        log.info(
            "node %s, version %s, alone: embedded store, RELAY_REDIS_URL is not set",
            app.state.relay.node.id,
            __version__,
        )
    if not settings.token_secret:
        log.info("tokens are made for everybody: RELAY_TOKEN_SECRET is not set")
    server = Server(
        uvicorn.Config(
            app,
            host=settings.host,
            port=settings.port,
            http=Protocol,
            ws="none",
            lifespan="on",
            access_log=False,  # its lines would have the tokens in full
            log_config=None,
            server_header=False,
            proxy_headers=bool(settings.trusted_proxies),
            forwarded_allow_ips=settings.trusted_proxies or None,
            ssl_certfile=settings.ssl_certfile or None,
            ssl_keyfile=settings.ssl_keyfile or None,
            backlog=4096,
            timeout_graceful_shutdown=_GRACE,
        ),
        app.state.relay,
    )
    server.run()
    if not server.started:
        sys.exit(1)


def _allow_descriptors() -> None:
    """Raises the soft limit on open files, often 1024, to the hard one: every client is a descriptor."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


class Server(uvicorn.Server):
    """uvicorn's, with a drain before the shutdown: the first SIGTERM or SIGINT begins it, a second ends it."""

    def __init__(self, config: uvicorn.Config, relay: Relay) -> None:
        super().__init__(config)
        self._relay = relay
        self._hurry = asyncio.Event()
        self._drain: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: Any = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets=sockets)
        # What there is by now stays: the collector need not look at all of it again and again, for 10 ms at a time.
        gc.collect()
        gc.freeze()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handles signals while serving, and ignores them afterwards: the process is at its end, and one more
        must not turn its exit status into a failure."""
        for sig in HANDLED_SIGNALS:
            signal.signal(sig, self.handle_exit)
        try:
            yield
        finally:
            for sig in HANDLED_SIGNALS:
                signal.signal(sig, signal.SIG_IGN)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._loop is None or not self.started:
            self.should_exit = True
        else:
            self._loop.call_soon_threadsafe(self._on_signal, sig)

    def _on_signal(self, sig: int) -> None:
        if self._drain is None:
            log.info("%s: draining, a second one ends at once", signal.Signals(sig).name)
            self._drain = asyncio.create_task(self._drain_then_exit())
        else:
            self._hurry.set()

    async def _drain_then_exit(self) -> None:
        """The phases of `transfer.Phase`, each for as long as the settings say or the work lasts."""
        settings, relay = self._relay.settings, self._relay
        end = asyncio.get_running_loop().time() + settings.drain_timeout
        alone = not settings.redis_url  # no balancer looks, and no other node could take the clients
        relay.advance(Phase.UNREADY)
        await self._pause(0 if alone else settings.drain_delay)
        relay.advance(Phase.CLOSED)
        await self._pause(0 if alone else settings.drain_wait, while_busy=True)
        relay.advance(Phase.RELEASED)
        await self._pause(end - asyncio.get_running_loop().time(), while_busy=True)
        relay.advance(Phase.CUT)
        self.should_exit = True

    async def _pause(self, seconds: float, *, while_busy: bool = False) -> None:
        """Waits, but no longer than until a second signal comes, or the last client has gone."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while (left := deadline - loop.time()) > 0 and not self._hurry.is_set():
            if while_busy and self._relay.is_idle():
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(0.1 if while_busy else left, left)):
                    await self._hurry.wait()
