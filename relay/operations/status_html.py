"""The status page as HTML for a browser, from the templates `templates/status.html` and `tables.html`."""

from typing import NamedTuple
from urllib.parse import unquote

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from relay.cluster.progress import Progress
from relay.operations.formatting import ago, duration, moved, not_begun, percent, size
from relay.operations.overview import Overview
from relay.operations.viewer import Viewer
from relay.states import State

_environment = Environment(
    loader=PackageLoader("relay.operations"),
    autoescape=True,
    undefined=StrictUndefined,  # a misspelt value raises instead of being left out
    trim_blocks=True,
    lstrip_blocks=True,
)
_environment.filters |= {"ago": ago, "size": size, "duration": duration}
_PAGE, _TABLES = _environment.get_template("status.html"), _environment.get_template("tables.html")


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
    """Return the status page. `node` has made it at the time of day `clock`, `12:34:56`."""
    return _rendered(_PAGE, overview, viewer, node=node, clock=clock)


def as_tables(overview: Overview, viewer: Viewer, *, node: str, clock: str) -> str:
    """Return what `as_html` shows, as a part of another page."""
    return _rendered(_TABLES, overview, viewer, node=node, clock=clock)


def _rendered(template: Template, overview: Overview, viewer: Viewer, *, node: str, clock: str) -> str:
    rows = [_row(transfer, viewer) for transfer in overview.shown]
    return template.render(overview=overview, rows=rows, viewer=viewer, node=node, clock=clock)


def _row(transfer: Progress, viewer: Viewer) -> _Row:
    name = unquote(transfer.name) if viewer.names else ""
    token, ends = transfer.token, (transfer.uploader, transfer.downloader)
    lasted = duration(transfer.seconds)
    if transfer.left is not None:
        lasted += f", {duration(max(0, transfer.left))} left"
    share = None if not_begun(transfer) else transfer.share
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
