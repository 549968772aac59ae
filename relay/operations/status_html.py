"""The status page as HTML for a browser, from the template `templates/status.html`."""

import base64
import hashlib
from importlib.resources import files
from typing import NamedTuple
from urllib.parse import unquote

from jinja2 import Environment, PackageLoader, StrictUndefined

from relay.cluster.progress import Progress
from relay.operations.formatting import ago, duration, moved, percent, size
from relay.operations.overview import Overview
from relay.operations.viewer import Viewer
from relay.states import State

_FOLDER = files("relay.operations") / "templates"
#: The page's one inline style and one inline script. Only text with exactly these hashes may run.
_STYLE, _SCRIPT = (_FOLDER / "status.css").read_text(), (_FOLDER / "status.js").read_text()


def _source_of(inline: str) -> str:
    """Return the CSP source that allows an inline element with this text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()}'"


#: The page's Content-Security-Policy: it may use its own style and script, and ask the relay for itself again.
PAGE_POLICY = "; ".join(
    [
        "default-src 'none'",
        f"style-src {_source_of(_STYLE)}",
        f"script-src {_source_of(_SCRIPT)}",
        "img-src data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)

_environment = Environment(
    loader=PackageLoader("relay.operations"),
    autoescape=True,
    undefined=StrictUndefined,  # a misspelt value raises instead of being left out
    trim_blocks=True,
    lstrip_blocks=True,
)
_environment.filters |= {"ago": ago, "size": size, "duration": duration}
_environment.globals |= {"style": _STYLE, "script": _SCRIPT}
_PAGE = _environment.get_template("status.html")


class _Row(NamedTuple):
    """One transfer as text, cell by cell. The template unpacks it: looking attributes up there took as long again."""

    state: str
    share: str
    percent: str
    moved: str
    rate: str
    lasted: str
    uploader: str
    downloader: str
    token: str
    name: str


def as_html(overview: Overview, viewer: Viewer, *, node: str, clock: str) -> str:
    """Return the page, to be sent with `PAGE_POLICY`. `node` has made it at the time of day `clock`, `12:34:56`."""
    rows = [_row(transfer, viewer) for transfer in overview.shown]
    return _PAGE.render(overview=overview, rows=rows, viewer=viewer, node=node, clock=clock)


def _row(transfer: Progress, viewer: Viewer) -> _Row:
    name = unquote(transfer.name) if viewer.names else ""
    token, ends = transfer.token, (transfer.uploader, transfer.downloader)
    lasted = duration(transfer.seconds)
    if transfer.left is not None:
        lasted += f", {duration(max(0, transfer.left))} left"
    if transfer.state is State.WAITING and not transfer.delivered:
        length = "" if transfer.length is None else size(transfer.length)
        return _Row(transfer.state.value, "", "", length, "", lasted, *ends, token, name)
    share = transfer.share
    return _Row(
        transfer.state.value,
        "" if share is None else f"{share:.4f}",
        percent(share),
        moved(transfer),
        f"{size(transfer.rate)}/s" if transfer.state is State.STREAMING else "",
        lasted,
        *ends,
        token,
        name,
    )
