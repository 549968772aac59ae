"""`relay receive`: receive what somebody sends."""

import os
import shlex
import stat
import sys
import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import click

from relay.cli.client import EXITS, Seconds, Shared, ending, fail, shared_options, stdin
from relay.client.archive import ENDING, MEDIA_TYPE
from relay.client.download import Download
from relay.client.failures import Exit, Failure, Useless
from relay.client.links import Address
from relay.client.naming import safe_name, shown
from relay.client.offer import End, Offer
from relay.client.part import Part, check_space, check_target, part_path, tags_of_parts, write_all
from relay.client.report import Report, size_of
from relay.client.unpack import Tree, check_folder

_STDOUT = "-"


@click.command(epilog=EXITS)
@click.argument("link", required=False)
@click.option(
    "-o", "--output", metavar="PATH", type=click.Path(), help="write to this file, or into this directory; - is stdout"
)
@click.option("--archive", is_flag=True, help="save the tar of a directory, and do not unpack it")
@click.option("--overwrite", is_flag=True, help="replace a file that exists")
@click.option(
    "--wait",
    metavar="SECONDS",
    type=Seconds(),
    default=300.0,
    show_default=True,
    help="how long to wait for the sender",
)
@shared_options
def receive(
    *,
    link: str | None,
    output: str | None,
    archive: bool,
    overwrite: bool,
    wait: float,
    shared: Shared,
) -> None:
    """Receive the file or directory behind LINK.

    LINK is what `relay send` prints: https://relay.example/LINK/NAME. Without the argument it is read from RELAY_LINK,
    or from stdin, so that nobody else on this machine can see it. The file is saved here under the name that the
    sender gave it, when all of it has arrived. If the connection breaks, it is made again; if this command is stopped,
    run it again, and it goes on where it was.

    \b
    Examples:
      relay receive https://relay.example/LINK/holiday.zip
      relay receive -o Downloads/ https://relay.example/LINK/holiday.zip
      RELAY_LINK=https://relay.example/LINK/backup.tar relay receive -o - | tar x
    """
    if shared.as_json and output == _STDOUT:
        raise click.UsageError("--json and -o - would both write to stdout")
    if output == _STDOUT and sys.stdout.name == os.devnull:
        raise click.UsageError("stdout is closed: choose a file with -o")
    if output == _STDOUT and sys.stdout.isatty():
        # It may have escapes in it, which the terminal would obey.
        raise click.UsageError("the file would be printed on this terminal: choose a file with -o, or pipe it (| less)")
    try:
        address = Address.parse(link if link not in (None, "-") else _asked_for())
        http = shared.http(address.server)
    except Failure as failure:
        fail(failure)
    report = shared.report(address.name)
    again = "relay receive " + ("" if output is None else f"-o {shlex.quote(output)} ") + address.url
    is_stream = output is not None and (output == _STDOUT or _is_special(output))
    goes_on = "start the sender again, too" if is_stream else f"go on with: {again}"
    with ending(report, goes_on=lambda: goes_on):
        download = Download(http, address, report, wait=wait, give_up=shared.give_up)
        begun = time.monotonic()
        left = None if is_stream else _left_here(download, output, report, archive=archive)
        offer, end = left or (download.look(), None)
        report.ready(name=offer.name, bytes=offer.length)
        saved: Path | None = None
        where = ""
        if output is not None and is_stream:
            if output == _STDOUT:
                _to_stream(download, offer, sys.stdout.fileno(), "stdout")
            else:
                with Path(output).open("wb", buffering=0) as stream:
                    _to_stream(download, offer, stream.fileno(), shown(output))
        elif offer.media_type == MEDIA_TYPE and not archive:
            saved = _target(output, safe_name(offer.name.removesuffix(ENDING)))
            count = _to_folder(download, offer, end, saved, report)
            where = f", {count} files, as {shown(str(saved))}/"
        else:
            saved = _target(output, offer.name)
            check_target(saved, overwrite=overwrite)
            _to_file(download, offer, end, saved, report, overwrite=overwrite)
            where = f" as {shown(str(saved))}"
        seconds = time.monotonic() - begun
        report.done(
            f"received {size_of(download.done)}{where}{', checksum compared' if download.is_compared else ''}",
            bytes=download.done,
            path=None if saved is None else str(saved),
            seconds=round(seconds, 3),
            sha256=download.checksum.hex,
            compared=download.is_compared,
        )


def _asked_for() -> str:
    """Return the link from the environment, stdin or a prompt. Raise Failure."""
    if link := os.environ.get("RELAY_LINK"):
        return link
    given = stdin()
    if given.isatty():
        sys.stderr.write("Link: ")
        sys.stderr.flush()
    try:
        link = given.readline(4096).strip()
    except UnicodeDecodeError:
        link = ""
    if not link:
        raise Failure(Exit.USAGE, "there is no link: give it as the argument, in RELAY_LINK or on stdin")
    return link


def _target(output: str | None, name: str) -> Path:
    """Return the path that the file or directory is to have, if its own name is `name`."""
    if output is None:
        return Path(name)
    path = Path(output)
    return path / name if path.is_dir() or output.endswith("/") else path


def _left_here(download: Download, output: str | None, report: Report, *, archive: bool) -> tuple[Offer, End] | None:
    """Return what an earlier run has received of an upload that was delivered meanwhile; None if there is nothing.

    That one was stopped after its machine had everything, and before the file had its name.
    """
    name = safe_name(download.address.name)
    file, folder = _target(output, name), _target(output, safe_name(name.removesuffix(ENDING)))
    kinds = [(file, "")] if archive else [(file, ""), (folder, MEDIA_TYPE)]
    for target, media_type in kinds:
        for etag in tags_of_parts(target):
            path = part_path(target, etag)
            if path.is_dir() is not bool(media_type) or (end := download.end_of(etag)) is None or end.is_replaced:
                continue
            if end.outcome == "complete" and end.size is not None:
                return Offer(name, etag, end.size, media_type), end
            report.say(f"what is here belongs to an upload that is over, so delete it: {shown(str(path))}")
    return None


def _to_file(
    download: Download, offer: Offer, end: End | None, target: Path, report: Report, *, overwrite: bool
) -> None:
    with Part(target, offer.etag) as part:
        if offer.length is not None and part.size > offer.length:
            part.restart()
        check_space(target.parent, (offer.length or 0) - part.size)
        _say_what_is_here(report, part.size)
        for _ in download.known(part.read()):
            pass
        try:
            if end is not None:
                download.check(end)
            else:
                for piece in download.pieces(offer):
                    part.write(piece)
        except Useless:
            part.discard()
            raise
        part.complete(overwrite=overwrite)


def _to_folder(download: Download, offer: Offer, end: End | None, target: Path, report: Report) -> int:
    check_folder(target)
    if offer.length is None:
        raise Failure(Exit.CORRUPTED, "the archive has no length: save it with --archive")
    with Tree(target, offer.etag) as tree:
        check_space(target.parent, tree.needs(offer.length))
        _say_what_is_here(report, tree.size)
        try:
            if end is None:
                return tree.unpack(chain(download.known(tree.read()), download.pieces(offer)))
            return tree.unpack(_checked(download, tree, end))
        except Useless:
            tree.discard()
            raise


def _checked(download: Download, tree: Tree, end: End) -> Iterator[bytes]:
    """Yield all of a stream that has ended. Raise Useless if it is not here, or is not what was sent."""
    yield from download.known(tree.read())
    if end.size is not None and end.sha256:  # only the checksum tells whether what is missing is the end
        yield from download.known([tree.end(end.size)])
    download.check(end)


def _say_what_is_here(report: Report, size: int) -> None:
    if size:
        report.say(f"going on after {size_of(size)}, which are here already")


def _is_special(output: str) -> bool:
    """Return whether this is a pipe or a device, as /dev/null is: such are written to, and never replaced."""
    try:
        mode = Path(output).stat().st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _to_stream(download: Download, offer: Offer, fd: int, name: str) -> None:
    for piece in download.pieces(offer):
        try:
            write_all(fd, piece)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise Failure(Exit.LOCAL, f"cannot write to {name}: {error.strerror}") from None
