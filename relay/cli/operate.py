"""The operator's commands: list what the cluster is doing, and end it. They talk to Redis, so no node need be running.

Exit status: 0 done · 1 there is no such token or transfer · 2 wrong usage or a bad setting · 3 Redis does not answer,
or `check` found something wrong.
"""

import asyncio
import json
import logging
import re
import shutil
import sys
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any, NoReturn

import click
from pydantic import ValidationError

from relay.access import ID_LENGTH, Access
from relay.cluster.node import Node
from relay.cluster.progress import Progress
from relay.errors import Error, Problem, StoreUnavailable
from relay.metrics import Metrics
from relay.names import encode_name, nfc
from relay.operations.census import Census
from relay.operations.check import Checked
from relay.operations.check import check as check_redis
from relay.operations.overview import Overview
from relay.operations.status_json import node_json, token_json, transfer_json
from relay.operations.status_text import facts, fitted, node_lines, summary, token_lines, transfer_lines
from relay.operations.viewer import OPERATOR, Viewer
from relay.settings import Settings
from relay.store.failures import describe
from relay.store.own_redis import running
from relay.store.store import Store
from relay.transfer.relay import Relay

_NOT_FOUND, _USAGE, _UNAVAILABLE, _INTERRUPTED = 1, 2, 3, 130

#: Seconds between two lists of --watch.
_WATCH = 2.0
#: Moves to the first line of a terminal, clears what is right of the cursor, and clears what is below it. The terminal
#: is written over and not cleared first, because it would flicker.
_HOME, _END_OF_LINE, _END_OF_SCREEN = "\x1b[H", "\x1b[K\n", "\x1b[J"
#: Other people may see a terminal, and the first characters of a token are enough for every command.
_AT_A_TERMINAL = Viewer(names=True)


def parse_settings(flags: dict[str, Any]) -> Settings:
    """Return the settings from flags and environment. Print one line for each bad one, and exit with status 2."""
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        return Settings(**given)
    except ValidationError as error:
        for problem in error.errors():
            where = "".join(f"RELAY_{part}".upper() + ": " for part in problem["loc"])
            line = where + problem["msg"].removeprefix("Value error, ")
            click.echo(f"relay: {_with_flags(line, given)}", err=True)
        sys.exit(_USAGE)


def _with_flags(line: str, given: Collection[str]) -> str:
    """Return a line that names variables, with the flag in place of each variable whose flag was `given`."""

    def name(variable: re.Match[str]) -> str:
        setting = variable[1].lower()
        return "--" + setting.replace("_", "-") if setting in given else variable[0]

    return re.sub(r"\bRELAY_([A-Z_]+)\b", name, line)


def _command(**attributes: Any) -> Callable[[Callable[..., None]], click.Command]:
    """Return a decorator for a command that talks to Redis. It adds the flags that say where Redis is."""

    def decorate(function: Callable[..., None]) -> click.Command:
        for flag, meaning in (("--prefix", "first part of every key"), ("--redis-url", "where the cluster's Redis is")):
            variable = "RELAY_" + flag[2:].replace("-", "_").upper()
            function = click.option(flag, metavar="TEXT", help=f"{meaning} [{variable}]")(function)
        command: click.Command = click.command(**attributes)(function)
        return command

    return decorate


def _fail(line: str, status: int) -> NoReturn:
    """Print one line of error, and exit."""
    click.echo(f"relay: {line}", err=True)
    sys.exit(status)


def _run(action: Callable[[Relay], Awaitable[None]], flags: dict[str, str | None]) -> None:
    """Run `action` on a node that serves nobody, and turn what it raises into a line and an exit status."""
    settings = parse_settings(flags)
    if settings.is_alone:
        settings = settings.model_copy(update={"redis_url": _url_of_the_only_node(settings)})
    logging.getLogger("relay").addHandler(logging.NullHandler())  # an error is printed as one line, below

    async def connected() -> None:
        store = Store.connect(settings)
        try:
            await action(Relay(settings, store, Metrics(), Node(settings, store)))
        finally:
            await store.aclose()

    try:
        asyncio.run(connected())
    except StoreUnavailable as error:
        _fail(f"Redis: {describe(error.__cause__) if error.__cause__ else error.line}", _UNAVAILABLE)
    except Checked as wrong:
        _fail(f"Redis: {wrong}", _UNAVAILABLE)
    except Problem as problem:
        _fail(problem.line, _NOT_FOUND)
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)


def _url_of_the_only_node(settings: Settings) -> str:
    """Return the URL of the Redis that belongs to a node here. Exit if there is no such node, or more than one."""
    if settings.redis_url:
        _fail(f"{settings.redis_url} is the memory of a node, which shows it only at its GET /status", _USAGE)
    found = running()
    if not found:
        _fail("RELAY_REDIS_URL is not set: say with --redis-url which Redis the cluster uses", _USAGE)
    if len(found) > 1:
        _fail(f"several nodes here have a Redis of their own: choose with --redis-url {' or '.join(found)}", _USAGE)
    click.echo(f"relay: RELAY_REDIS_URL is not set, so this is about the node here that has {found[0]}", err=True)
    return found[0]


def _print(lines: Sequence[str], data: object, *, as_json: bool) -> None:
    click.echo(json.dumps(data) if as_json else "\n".join(lines))


_json = click.option("--json", "as_json", is_flag=True, help="print one line of JSON")


def _repaint(overview: Overview, transfers: Sequence[Progress]) -> None:
    """Write over what a terminal shows as much as it has room for now."""
    columns, rows = shutil.get_terminal_size()
    table = transfer_lines(transfers, _AT_A_TERMINAL, columns=columns)
    above = [summary(overview), *facts(overview, _AT_A_TERMINAL)]
    shown = fitted([*above, "", *table], columns, rows)
    click.echo(_HOME + "".join(line + _END_OF_LINE for line in shown) + _END_OF_SCREEN, nl=False)


@_command()
@_json
@click.option("--watch", is_flag=True, help="list them again every two seconds, until Ctrl-C")
def ps(*, as_json: bool, watch: bool, **flags: str | None) -> None:
    """List every transfer: its nodes, how far it is and how fast."""

    async def show(relay: Relay) -> None:
        while True:
            census = Census(relay.store)
            transfers = await census.transfers()
            if watch and not as_json and sys.stdout.isatty():
                _repaint(await census.overview(), transfers)
            else:
                data = [transfer_json(transfer, OPERATOR) for transfer in transfers]
                _print(transfer_lines(transfers, _AT_A_TERMINAL), data, as_json=as_json)
            if not watch:
                return
            await asyncio.sleep(_WATCH)

    _run(show, flags)


@_command()
@_json
def nodes(*, as_json: bool, **flags: str | None) -> None:
    """List the nodes and their load."""

    async def show(relay: Relay) -> None:
        found = (await Census(relay.store).overview()).nodes
        _print(node_lines(found, _AT_A_TERMINAL), [node_json(node, OPERATOR) for node in found], as_json=as_json)

    _run(show, flags)


@_command()
@_json
def tokens(*, as_json: bool, **flags: str | None) -> None:
    """List every token, the first to expire on top."""

    async def show(relay: Relay) -> None:
        every = await Census(relay.store).tokens()
        # Nodes of version 0.1, during an upgrade, have whole tokens in their keys.
        lives = [life._replace(token=life.token[:ID_LENGTH]) for life in every]
        _print(token_lines(lives), [token_json(life) for life in lives], as_json=as_json)

    _run(show, flags)


@_command()
@click.argument("token")
@click.argument("name")
def cancel(*, token: str, name: str, **flags: str | None) -> None:
    """End the transfer of NAME for both sides, as a DELETE does.

    TOKEN is a token's id, or as much of its beginning as no other id has. NAME may be written as `ps` prints it or as
    it is.
    """

    async def end(relay: Relay) -> None:
        whole = await _whole(relay.store, token)
        for written in dict.fromkeys([name, encode_name(nfc(name))]):
            if await relay.cancel(Access.of_operator(whole), name=written):
                click.echo(f"cancelled {whole} {written}")
                return
        raise Problem(Error.NO_UPLOAD)

    _run(end, flags)


@_command()
@click.argument("token")
def revoke(*, token: str, **flags: str | None) -> None:
    """Delete a token, and end its transfers.

    TOKEN is a token's id, or as much of its beginning as no other id has.
    """

    async def end(relay: Relay) -> None:
        whole = await _whole(relay.store, token)
        await relay.revoke(Access.of_operator(whole))
        click.echo(f"revoked {whole}")

    _run(end, flags)


async def _whole(store: Store, beginning: str) -> str:
    """Return the one id of a token that begins with `beginning`. Exit if there is none, or more than one.

    A whole token begins with its id. Its secret must not reach Redis.
    """
    beginning = beginning[:ID_LENGTH]
    if not re.fullmatch("[A-Za-z0-9]+", beginning):
        _fail("a token has letters and digits only", _USAGE)
    found = [life.token for life in await Census(store).tokens(beginning=beginning)]
    if not found:
        _fail(f"there is no token {beginning}", _NOT_FOUND)
    if len(found) > 1:
        _fail(f"{len(found)} tokens begin with {beginning}: give more of it (relay tokens)", _USAGE)
    return found[0]


@_command()
def check(**flags: str | None) -> None:
    """Try on Redis what a node needs of it, and say what is wrong."""

    async def attempt(relay: Relay) -> None:
        await check_redis(relay.store, click.echo)

    _run(attempt, flags)
