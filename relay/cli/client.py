"""What `relay send` and `relay receive` have in common: options, and how they end."""

import contextlib
import functools
import math
import os
import signal
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TextIO

import click

from relay.client.failures import Exit, Failure
from relay.client.http import Http, Trust
from relay.client.report import Json, Lines, Quiet, Report

EXITS = """\b
Exit status:
  0    done: the receiver has everything
  1    refused, or nothing is there
  2    wrong usage
  3    the relay cannot be reached
  4    the other side has left
  5    trouble with a local file (disk full, exists, changed)
  6    what arrived is not what was sent
  130  interrupted
"""


class Seconds(click.FloatRange):
    """A number of seconds, a day at most."""

    def __init__(self) -> None:
        super().__init__(0, 86400)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        seconds = super().convert(value, param, ctx)
        if math.isnan(seconds):  # which no range excludes
            self.fail("nan is not a number of seconds.", param, ctx)
        return seconds


@dataclass(frozen=True)
class Shared:
    """What the options say that both commands have."""

    as_json: bool
    quiet: bool
    no_progress: bool
    #: Seconds to go on trying to reconnect.
    give_up: float
    cacert: Path | None
    insecure: bool

    def http(self, server: str) -> Http:
        """Return a client for requests to this server. Warn of --insecure. Raise Failure."""
        http = Http(Trust(self.cacert, self.insecure), server)
        if self.insecure:
            click.echo("relay: warning: no certificate is checked, so whoever is between can read the file", err=True)
        return http

    def report(self, label: str) -> Report:
        """Return the report that the options ask for. There is no bar unless stderr is a terminal."""
        if self.as_json:
            return Json()
        if self.quiet:
            return Quiet()
        if self.no_progress or not sys.stderr.isatty():
            return Lines()
        from relay.client.bar import Bar  # noqa: PLC0415  rich takes long to load, and scripts do not need it

        return Bar(label)


def shared_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that both commands have. The command gets them as its argument `shared`."""

    @functools.wraps(command)
    def function(**arguments: Any) -> None:
        _open_closed_streams()
        shared = Shared(**{field.name: arguments.pop(field.name) for field in fields(Shared)})
        command(shared=shared, **arguments)

    options = (
        click.option("--json", "as_json", is_flag=True, help="print one JSON object a line, for scripts"),
        click.option("--quiet", is_flag=True, help="print errors only"),
        click.option("--no-progress", is_flag=True, help="show no bar (there is none without a terminal)"),
        click.option(
            "--give-up",
            metavar="SECONDS",
            type=Seconds(),
            default=300.0,
            show_default=True,
            help="how long to go on trying to reconnect",
        ),
        click.option("--cacert", type=click.Path(path_type=Path), help="trust the certificates in this file, too"),
        click.option("--insecure", is_flag=True, help="accept any certificate: whoever is between can read the file"),
    )
    for option in reversed(options):
        function = option(function)
    return function


def stdin() -> TextIO:
    """Return stdin. Raise Failure if it is closed."""
    if sys.stdin is None:
        raise Failure(Exit.USAGE, "stdin is closed, so nothing can be read from it")
    return sys.stdin


def _open_closed_streams() -> None:
    """Replace what is closed of the standard streams: otherwise the next file would get its number, and the output."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # which takes the lowest number that is free
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: PTH123, SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: PTH123, SIM115


@contextlib.contextmanager
def ending(report: Report, *, goes_on: Callable[[], str]) -> Iterator[None]:
    """Turn what the work raises into one line and an exit status. `goes_on` says after Ctrl-C what to do next."""
    # A supervisor's SIGTERM means the same as Ctrl-C: stop, and keep what is there. So does the end of the terminal,
    # unless the command is to outlive it (nohup).
    previous = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    for number, handler in previous.items():
        if handler == signal.SIG_DFL:
            signal.signal(number, _interrupt)
    try:
        yield
    except Failure as failure:
        _end(report, failure.status, failure.line)
    except KeyboardInterrupt:
        _end(report, Exit.INTERRUPTED, f"interrupted; {goes_on()}")
    except BrokenPipeError:
        _end(report, Exit.LOCAL, "whoever read the output has left")
    except OSError as error:
        _end(report, Exit.LOCAL, f"{error.filename or 'the output'}: {error.strerror or error}")
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        with contextlib.suppress(OSError):  # of a terminal that is gone
            report.close()
        _forget_what_cannot_be_written()


def fail(failure: Failure) -> NoReturn:
    """End with a failure that came before there was a report."""
    _end(Quiet(), failure.status, failure.line)


def read_secret(path: Path) -> str:
    """Return the first line of a file that has a secret. Raise Failure."""
    try:
        if path != Path("-"):
            if stat.S_IMODE(path.stat().st_mode) & 0o007:
                click.echo(f"relay: warning: everybody on this machine can read {path}: chmod 600 it", err=True)
            text = path.read_text()
        else:
            text = stdin().readline()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise Failure(Exit.USAGE, f"cannot read {path}: {reason}") from None
    return text.partition("\n")[0].strip()


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _end(report: Report, status: Exit, line: str) -> NoReturn:
    with contextlib.suppress(OSError):  # nobody can be told
        report.failed(status, line)
    _forget_what_cannot_be_written()
    sys.exit(status)


def _forget_what_cannot_be_written() -> None:
    """Have the interpreter not fail when it exits, because a pipe is closed, a disk full or the terminal gone."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
