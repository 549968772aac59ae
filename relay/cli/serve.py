"""`relay serve`: read the settings from flags and environment, and run one node until it is told to stop."""

import contextlib
import logging
import os
import socket
import sys
from collections.abc import Iterator
from functools import partial
from types import NoneType
from typing import get_args

import click
import uvicorn
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from relay import __version__
from relay.app import create_app
from relay.cli.operate import parse_settings
from relay.logs import set_up
from relay.server.listening import listen, shown
from relay.server.protocol import Protocol
from relay.server.run import Server
from relay.settings import SECTIONS, Settings, unknown_variables
from relay.store.own_redis import MissingError, UnusableError, own_redis
from relay.transfer.drain import drain

log = logging.getLogger("relay")

#: Seconds that transfers get, after they were cut off at the end of a shutdown, to tell their clients and clean up.
_GRACE = 10
#: Maximum connections that the kernel holds until they are accepted.
_BACKLOG = 4096
_NEEDS_LINUX = (
    "relay: serve needs Linux, whose TCP says when a client has left and what it has received: "
    "use a container or a virtual machine."
)


class _Sectioned(click.Command):
    """A command whose help lists the settings in the sections of `SECTIONS`."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        records = {param.name: param.get_help_record(ctx) for param in self.get_params(ctx)}
        for title, names in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([record for name in names if (record := records.pop(name))])
        with formatter.section("Other"):
            formatter.write_dl([record for record in records.values() if record])


def _options(command: click.Command) -> click.Command:
    """Add one option for each setting, so that --help, the environment and the code cannot disagree."""
    for name, field in reversed(Settings.model_fields.items()):
        command.params.insert(0, _option(name, field))
    return command


def _option(name: str, field: FieldInfo) -> click.Option:
    """Return the option of one setting."""
    plain = [kind for kind in (field.annotation, *get_args(field.annotation)) if kind is not NoneType]
    default = "" if field.default is PydanticUndefined else f"{field.default!s}"
    note = f" [default: {default}]" if default else ""
    return click.Option(
        ["--" + name.replace("_", "-")],
        help=f"{field.description}{note} [RELAY_{name.upper()}]",
        metavar={int: "INTEGER", float: "SECONDS"}.get(plain[0], "TEXT") if plain else "TEXT",
    )


@_options
@click.command(cls=_Sectioned, context_settings={"max_content_width": 110})
def serve(**flags: str | None) -> None:
    """Run one node.

    Every option is an environment variable too; a flag wins over it. Times are in seconds, sizes in bytes.
    """
    if sys.platform != "linux":
        click.echo(_NEEDS_LINUX, err=True)
        sys.exit(2)
    settings = parse_settings(flags)
    listeners = _listen(settings)
    set_up(level=settings.log_level, form=settings.log_format)
    _warn_of_unknown_variables()
    _allow_descriptors()
    with _embedded(settings) as redis_url:
        _run(settings, listeners, redis_url)


def _run(settings: Settings, listeners: list[socket.socket], redis_url: str | None) -> None:
    app = create_app(settings, redis_url=redis_url)
    _announce(settings, app.relay.node.id, listeners, redis_url)
    server = Server(
        uvicorn.Config(
            app,
            http=Protocol,
            ws="none",
            lifespan="on",
            access_log=False,  # its lines would contain whole tokens
            log_config=None,
            server_header=False,
            proxy_headers=bool(settings.trusted_proxies),
            forwarded_allow_ips=settings.trusted_proxies or None,
            ssl_certfile=settings.ssl_certfile or None,
            ssl_keyfile=settings.ssl_keyfile or None,
            backlog=_BACKLOG,
            timeout_graceful_shutdown=_GRACE,
        ),
        partial(drain, app.relay.gate, settings),
    )
    server.run(sockets=listeners)
    if not server.started:
        sys.exit(1)


@contextlib.contextmanager
def _embedded(settings: Settings) -> Iterator[str | None]:
    """Run a redis-server for this node alone if its settings name no store, and yield its URL.

    Yield None if they do, or if there is no redis-server to be had.
    """
    with contextlib.ExitStack() as stack:
        url = None
        if not settings.redis_url:
            try:
                url = stack.enter_context(own_redis())
            except UnusableError as problem:
                level = logging.INFO if isinstance(problem, MissingError) else logging.WARNING
                log.log(level, "%s: so this node keeps its store in its own process, which is slower", problem)
        yield url


def _announce(settings: Settings, node: str, listeners: list[socket.socket], redis_url: str | None) -> None:
    """Log the node's id and version, where it listens, and what its settings leave open."""
    if not settings.is_alone:
        log.info("node %s, version %s", node, __version__)
    elif redis_url:
        log.info("node %s, version %s, alone, with a redis-server of its own: %s", node, __version__, redis_url)
    else:
        log.info("node %s, version %s, alone, with its store in its own process", node, __version__)
    if not settings.is_guarded:
        log.info("anybody may make tokens: RELAY_TOKEN_SECRET is not set")
    log.info("listening on %s", ", ".join(map(shown, listeners)))


def _listen(settings: Settings) -> list[socket.socket]:
    """Return the sockets to serve. Print one line and exit if the address cannot be listened on."""
    try:
        return listen(settings.host, settings.port, backlog=_BACKLOG)
    except OSError as error:
        where = f"{settings.host} port {settings.port}"
        click.echo(f"relay: cannot listen on {where}: {error.strerror}. See --host and --port.", err=True)
        sys.exit(1)


def _warn_of_unknown_variables() -> None:
    """Name variables that look like settings but are none: a misspelt one would be ignored without a word."""
    for variable, meant in unknown_variables(os.environ):
        hint = f": did you mean {meant}?" if meant else ", see relay serve --help"
        log.warning("%s is not a setting%s", variable, hint)


def _allow_descriptors() -> None:
    """Raise the soft limit on open files, often 1024, to the hard one: every client takes a descriptor."""
    import resource  # noqa: PLC0415 (Windows has no such module, and `serve` says there that it needs Linux)

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
