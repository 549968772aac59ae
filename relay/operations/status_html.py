"""The status page as HTML for a browser, from the templates `templates/status.html` and `tables.html`."""

import time
from typing import NamedTuple
from urllib.parse import unquote

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from relay.cluster.progress import Progress
from relay.operations.cancelling import Offer
from relay.operations.chart import chart
from relay.operations.formatting import ago, alarms, duration, history, left, not_begun, percent, size, speed
from relay.operations.overview import Overview
from relay.operations.viewer import Viewer

_environment = Environment(
    loader=PackageLoader("relay.operations"),
    autoescape=True,
    undefined=StrictUndefined,  # a misspelt value raises instead of being left out
    trim_blocks=True,
    lstrip_blocks=True,
)
_environment.filters |= {"ago": ago, "size": size, "duration": duration, "percent": percent}
_PAGE, _TABLES, _SURE = (_environment.get_template(name) for name in ("status.html", "tables.html", "cancel.html"))


class _Row(NamedTuple):
    """One transfer as text, cell by cell. The template unpacks it: looking attributes up there took as long again."""

    id: str
    state: str
    share: str
    percent: str
    #: What was delivered, and the whole size; empty if there is no such thing, or it is not known.
    done: str
    of: str
    rate: str
    left: str
    lasted: str
    uploader: str
    downloader: str
    token: str
    name: str
    #: What the button says that cancels it; empty if there is none.
    which: str


def as_html(overview: Overview, viewer: Viewer, *, node: str, clock: str) -> str:
    """Return the status page. `node` has made it at the time of day `clock`, `12:34:56`."""
    return _rendered(_PAGE, overview, viewer, node=node, clock=clock)


def as_tables(overview: Overview, viewer: Viewer, *, node: str, clock: str) -> str:
    """Return what `as_html` shows, as a part of another page."""
    return _rendered(_TABLES, overview, viewer, node=node, clock=clock)


def sure_page(offer: Offer, which: str) -> str:
    """Return the page that asks an operator whether to cancel a transfer: a browser without scripts gets it."""
    return _SURE.render(name=unquote(offer.name), which=which)


def _rendered(template: Template, overview: Overview, viewer: Viewer, *, node: str, clock: str) -> str:
    return template.render(
        overview=overview,
        rows=[_row(transfer, viewer) for transfer in overview.shown],
        ended=[(outcome, count) for outcome, count in overview.outcomes.items() if count],
        alarms=alarms(overview.servers or ()),
        chart=chart(overview.history),
        past=history(overview.history),
        viewer=viewer,
        node=node,
        clock=clock,
        now=time.time(),
    )


def _row(transfer: Progress, viewer: Viewer) -> _Row:
    share = None if not_begun(transfer) else transfer.share
    return _Row(
        transfer.id,
        transfer.state.value,
        "" if share is None else f"{share:.4f}",
        percent(share),
        "" if not_begun(transfer) else size(transfer.delivered),
        "" if transfer.length is None else size(transfer.length),
        speed(transfer),
        left(transfer),
        duration(transfer.seconds),
        transfer.uploader,
        transfer.downloader,
        transfer.token,
        unquote(transfer.name) if viewer.names else "",
        Offer(transfer.token, transfer.name, transfer.id).signed(viewer.key) if viewer.key else "",
    )
