"""`relay send`: send a file to whoever has the link."""

import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import click

from relay.cli.client import EXITS, Shared, ending, fail, read_secret, shared_options, stdin
from relay.client.archive import ENDING, ArchiveSource
from relay.client.begun import Begun
from relay.client.failures import Exit, Failure
from relay.client.http import Unreachable
from relay.client.links import Address, check_server, parse_token
from relay.client.naming import shown
from relay.client.patience import Patience
from relay.client.report import size_of
from relay.client.source import FileSource, PipeSource, Source
from relay.client.upload import Upload, make_token
from relay.errors import Problem
from relay.names import check_name

#: The variables from which secrets are read.
_SECRET, _TOKEN = "RELAY_TOKEN_SECRET", "RELAY_TOKEN"
#: How often the relay is asked for a token, if it cannot be reached.
_TRIALS = 4
#: Light modules around the QR code, without which cameras do not find it.
_QR_BORDER = 2


@click.command(epilog=EXITS)
@click.argument(
    "paths",
    metavar="FILE...",
    nargs=-1,
    required=True,
    type=click.Path(path_type=Path, allow_dash=True, readable=False),
)
@click.option("--server", envvar="RELAY_SERVER", metavar="URL", help="the relay [RELAY_SERVER]")
@click.option("--name", metavar="NAME", help="the name that the receiver sees; needed for -")
@click.option("--secret-file", type=click.Path(path_type=Path), help=f"a file with the relay's secret [{_SECRET}]")
@click.option("--token-file", type=click.Path(path_type=Path), help=f"a file with a token that exists [{_TOKEN}]")
@click.option("--qr/--no-qr", default=None, help="show the link as a QR code  [default: on a terminal]")
@click.option("--resume", is_flag=True, help="go on with the upload of FILE that was stopped")
@click.option("--cancel", is_flag=True, help="end the upload of FILE that was stopped: the receiver need not wait")
@shared_options
def send(
    *,
    paths: tuple[Path, ...],
    server: str | None,
    name: str | None,
    secret_file: Path | None,
    token_file: Path | None,
    qr: bool | None,
    resume: bool,
    cancel: bool,
    shared: Shared,
) -> None:
    """Send FILE to whoever has the link, which this command prints. With - it sends stdin.

    A directory, or several files, arrive as one directory; a receiver without relay gets NAME.tar.

    Nothing is stored: this command waits for the receiver, and ends when the receiver has everything. If the
    connection breaks, or a node of the relay, it goes on where the receiver is. So FILE must not change meanwhile.
    If this command is stopped, the same one with --resume goes on, while the receiver waits.

    \b
    Examples:
      relay send --server https://relay.example holiday.zip
      relay send photos
      pg_dump shop | relay send - --name shop.sql
      RELAY_TOKEN_SECRET=$(pass relay) relay send report.pdf
    """

    try:
        server = check_server(server or "")
        secret = _secret(_SECRET, secret_file)
        token = _secret(_TOKEN, token_file)
        own = parse_token(token) if token else None
        source = _source(paths, name)
        http = shared.http(server)
    except Failure as failure:
        fail(failure)
    report = shared.report(source.name)
    begun = Begun(server, paths, name or "", source)
    again = f"run the same command again: {'' if own else 'it makes a new link, and '}the receiver starts again, too"
    with ending(report, goes_on=lambda: _go_on(begun) if begun.is_kept else again):
        if resume or cancel:
            known, url = begun.find(unchanged=not cancel)
            upload = Upload(http, server, known, source, report, shared.give_up, url)
        else:
            upload = _create(
                lambda: Upload(http, server, own or make_token(http, server, secret), source, report, shared.give_up),
                server,
            )
            begun.keep(upload.token, upload.url)
        if cancel:
            _cancel(upload, begun)
            report.done("cancelled: the receiver is told", cancelled=True)
            return
        address = Address.of(server, upload.token, source.name)
        report.ready(link=address.url, page=address.page, name=source.name, bytes=source.length)
        if not shared.as_json:
            _show_link(address, source, quiet=shared.quiet, qr=qr)
        since = time.monotonic()
        size = _run(upload, begun)
        seconds = time.monotonic() - max(since, upload.waited_until)
        report.done(
            f"delivered {size_of(size)} in {seconds:.0f} s, {size_of(size / max(seconds, 0.001))}/s",
            bytes=size,
            seconds=round(seconds, 3),
            sha256=upload.checksum.hex if upload.checksum.done == size else None,
        )
        begun.forget()  # not before: if this is killed meanwhile, --resume can still say that all was delivered


def _run(upload: Upload, begun: Begun) -> int:
    """Send everything. Return the number of bytes that the receiver has. Raise Failure.

    An upload that another process can go on with is left as it is, if this one is stopped or cannot reach the relay.
    """
    try:
        return upload.run()
    except KeyboardInterrupt:
        # A second one ends this, too.
        if begun.is_kept:
            upload.pause()
        else:
            upload.cancel()
        raise
    except Failure as failure:
        if failure.status is Exit.UNREACHABLE and begun.is_kept:
            raise Failure(failure.status, f"{failure.line}; {_go_on(begun)}") from None
        _end(upload, begun)
        raise


def _cancel(upload: Upload, begun: Begun) -> None:
    """End an upload that was stopped. Raise Failure if that was not possible."""
    try:
        answer = upload.http.ask("DELETE", upload.url)
    except Unreachable as error:
        raise Failure(Exit.UNREACHABLE, f"cannot reach {upload.server}: {shown(str(error))}; try again") from None
    if not answer.refusal.passes:
        begun.forget()
    if not answer.is_good:
        raise answer.refusal.failure()


def _end(upload: Upload, begun: Begun) -> None:
    upload.cancel()
    begun.forget()


def _go_on(begun: Begun) -> str:
    return f"while the receiver waits (some minutes), go on with: {begun.command}"


def _create(begin: Callable[[], Upload], server: str) -> Upload:
    """Return an upload that a receiver can find. Raise Failure.

    If an answer is lost on its way, all begins again, with another token: nobody has been given the first one.
    """
    patience = Patience(math.inf)
    while True:
        try:
            upload = begin()
            upload.create()
            return upload
        except Unreachable as error:
            pause = patience.failed(time.monotonic())
            if pause is None or patience.attempts >= _TRIALS:
                raise Failure(
                    Exit.UNREACHABLE, f"cannot reach {server}: {shown(str(error))}; check --server, and try again"
                ) from None
            time.sleep(pause)


def _secret(variable: str, path: Path | None) -> str:
    """Return what is in a file, or else in the environment; empty if in neither. Raise Failure."""
    secret = read_secret(path) if path is not None else os.environ.get(variable, "").strip()
    if not (secret.isascii() and (secret + " ").isprintable()):
        raise Failure(
            Exit.USAGE, f"the secret in {path or variable} has a character that no header can have: is it another file?"
        )
    return secret


def _source(paths: Sequence[Path], name: str | None) -> Source:
    """Return what is to be sent. Raise Failure."""
    source: Source
    if Path("-") in paths:
        if len(paths) > 1:
            raise Failure(Exit.USAGE, "stdin cannot be sent together with files: run the command once for each")
        if not name:
            raise Failure(Exit.USAGE, "stdin has no name: give it one with --name")
        source = PipeSource(stdin().buffer, name)
    elif len(paths) > 1 or paths[0].is_dir():
        source = ArchiveSource(paths, name or "")
    else:
        source = FileSource(paths[0], name or "")
    try:
        source.name = check_name(source.name)
        if isinstance(source, ArchiveSource):
            check_name(source.name.removesuffix(ENDING))  # that of the folder in it
    except Problem as problem:
        why = problem.details["why"]
        raise Failure(Exit.USAGE, f"the name cannot be sent: {why} Give another with --name") from None
    except UnicodeEncodeError:
        raise Failure(Exit.USAGE, "the name cannot be sent: it is not UTF-8; give another with --name") from None
    return source


def _show_link(address: Address, source: Source, *, quiet: bool, qr: bool | None) -> None:
    """Print what the receiver has to run."""
    if quiet:
        click.echo(address.url)
        return
    size = "" if source.length is None else f"  {size_of(source.length)}"
    # Nothing is behind a link: on a narrow terminal, that would make it hard to select.
    lines = (
        f"{shown(source.name)}{size}",
        "To receive it, run this, or open the link in a browser:",
        f"  relay receive {address.page}",
        "Or without relay:",
        f"  curl -fOJ {address.url}",
    )
    click.echo("\n".join(lines), err=True)
    if qr or (qr is None and sys.stderr.isatty()):
        import segno  # noqa: PLC0415  not everybody needs it

        code = segno.make(address.page, error="l")
        if qr or _can_show(int(code.symbol_size(border=_QR_BORDER)[0])):
            code.terminal(sys.stderr, border=_QR_BORDER, compact=True)


def _can_show(columns: int) -> bool:
    """Return whether the terminal can show a QR code that is so wide."""
    try:
        "█▀▄".encode(sys.stderr.encoding)
        width = os.get_terminal_size(sys.stderr.fileno()).columns
    except (UnicodeEncodeError, LookupError, OSError):
        return False
    return width == 0 or columns <= width  # 0: unknown
