"""`relay serve`: read the settings from flags and environment, and run one node until it is told to stop."""

import contextlib
import logging
import sys
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
from relay.server.protocol import Protocol
from relay.server.run import Server
from relay.settings import Settings
from relay.transfer.drain import drain

log = logging.getLogger("relay")

#: Seconds that transfers get, after they were cut off at the end of a shutdown, to tell their clients and clean up.
_GRACE = 10
_NEEDS_LINUX = (
    "relay: serve needs Linux, whose TCP says when a client has left and what it has received: "
    "use a container or a virtual machine."
)


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
@click.command(context_settings={"max_content_width": 110})
def serve(**flags: str | None) -> None:
    """Run one node.

    Every option is an environment variable too; a flag wins over it. Times are in seconds, sizes in bytes.
    """
    if sys.platform != "linux":
        click.echo(_NEEDS_LINUX, err=True)
        sys.exit(2)
    settings = parse_settings(flags)
    set_up(level=settings.log_level, form=settings.log_format)
    _allow_descriptors()
    app = create_app(settings)
    _announce(settings, app.state.relay.node.id)
    server = Server(
        uvicorn.Config(
            app,
            host=settings.host,
            port=settings.port,
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
            backlog=4096,
            timeout_graceful_shutdown=_GRACE,
        ),
        partial(drain, app.state.relay.gate, settings),
    )
    server.run()
    if not server.started:
        sys.exit(1)


def _announce(settings: Settings, node: str) -> None:
    """Log the node's id and version, and what its settings leave open."""
    if settings.redis_url:
        log.info("node %s, version %s", node, __version__)
    else:
        log.info("node %s, version %s, alone on its embedded store: RELAY_REDIS_URL is not set", node, __version__)
    if not settings.token_secret:
        log.info("anybody may make tokens: RELAY_TOKEN_SECRET is not set")


def _allow_descriptors() -> None:
    """Raise the soft limit on open files, often 1024, to the hard one: every client takes a descriptor."""
    import resource  # noqa: PLC0415 (Windows has no such module, and `serve` says there that it needs Linux)

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
