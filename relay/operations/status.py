"""The status page in its three forms.  Pure: what is live goes in, a page comes out.

Tokens are secrets, and names belong to whoever has the token.  So a stranger sees of a token its first four
characters, by which its owner knows it again, and of names nothing; the operator sees everything.
"""

import base64
import hashlib
import re
import string
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from typing import Any
from urllib.parse import unquote

from relay.cluster.progress import Progress
from relay.operations.overview import NodeReport, Overview, TokenLife
from relay.states import State

#: Transfers on one page.
ROWS_MOST = 200

_TEMPLATE = (files("relay.operations") / "status.html").read_text()


def _hash_of(element: str) -> str:
    """The CSP source for the template's one inline `element`."""
    found = re.search(rf"<{element}>(.*?)</{element}>", _TEMPLATE, re.DOTALL)
    digest = hashlib.sha256(found[1].encode() if found else b"").digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


#: What the page may do: its own style and script, and asking for itself again.
PAGE_POLICY = "; ".join(
    [
        "default-src 'none'",
        f"style-src {_hash_of('style')}",
        f"script-src {_hash_of('script')}",
        "img-src data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)


@dataclass(frozen=True, slots=True)
class Viewer:
    """What whoever looks gets to see; `may_sign_in`: whether there is a secret by which to see more."""

    names: bool = False
    whole_tokens: bool = False
    may_sign_in: bool = False

    def token(self, token: str) -> str:
        return token if self.whole_tokens else f"{token[:4]}…"

    def name(self, name: str) -> str:
        """Percent-encoded, for a terminal: a name may hold characters that change what one sees of a line."""
        return name if self.names else ""


STRANGER, OPERATOR = Viewer(), Viewer(names=True, whole_tokens=True)


def size(count: float) -> str:
    """Bytes for people: `999 B`, `1.5 MiB`."""
    if count < 1024:  # noqa: PLR2004
        return f"{count:.0f} B"
    for unit in ("KiB", "MiB", "GiB"):
        count /= 1024
        if count < 1000:  # noqa: PLR2004 (four digits are one too many to read)
            return f"{count:.1f} {unit}"
    return f"{count / 1024:.1f} TiB"


def duration(seconds: float) -> str:
    """Seconds for people: `42 s`, `3 min 20 s`, `1 h 05 min`, `2 d 3 h`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def _moved(transfer: Progress) -> str:
    """How far a transfer is, in words."""
    if transfer.length is None:
        return size(transfer.delivered)
    return f"{size(transfer.delivered)} of {size(transfer.length)}"


def _percent(transfer: Progress) -> str:
    return "" if transfer.share is None else f"{100 * transfer.share:.0f}%"


# -- JSON --------------------------------------------------------------------------------------------------


def as_json(overview: Overview, viewer: Viewer) -> dict[str, Any]:
    """Times in seconds, sizes in bytes."""
    return {
        "streaming": overview.streaming,
        "waiting": overview.waiting,
        "tokens": overview.tokens,
        "rate": overview.rate,
        "nodes": [node_json(node, viewer) for node in overview.nodes],
        "transfers": [transfer_json(transfer, viewer) for transfer in overview.transfers[:ROWS_MOST]],
        "expiring": [token_json(life, viewer) for life in overview.lives],
    }


def node_json(node: NodeReport, viewer: Viewer) -> dict[str, Any]:
    shown = {
        "node": node.node,
        "alive": node.alive,
        "version": node.version,
        "started": node.started,
        "waiting": node.waiting,
        "streaming": node.streaming,
        "rate_in": node.rate_in,
        "rate_out": node.rate_out,
        "ended": node.ended,
        "complete": node.complete,
    }
    return shown | ({"host": node.host} if viewer.names else {})


def transfer_json(transfer: Progress, viewer: Viewer) -> dict[str, Any]:
    shown = {
        "id": transfer.id,
        "state": transfer.state,
        "token": viewer.token(transfer.token),
        "uploader": transfer.uploader,
        "downloader": transfer.downloader or None,
        "length": transfer.length,
        "delivered": transfer.delivered,
        "rate": transfer.rate,
        "seconds": transfer.seconds,
    }
    return shown | ({"name": unquote(transfer.name)} if viewer.names else {})


def token_json(life: TokenLife, viewer: Viewer) -> dict[str, Any]:
    return {"token": viewer.token(life.token), "expires_in": int(life.seconds), "uses": life.uses}


# -- text --------------------------------------------------------------------------------------------------


def as_text(overview: Overview, viewer: Viewer) -> str:
    """Aligned text for a terminal."""
    blocks = [[_summary(overview)]]
    if overview.transfers:
        blocks.append(transfer_lines(overview.transfers[:ROWS_MOST], viewer) + _more(overview))
    blocks.append(node_lines(overview.nodes))
    if overview.lives:
        more = overview.tokens - len(overview.lives)
        blocks.append(token_lines(overview.lives, viewer) + ([f"and {more} more"] if more > 0 else []))
    return "\n\n".join("\n".join(block) for block in blocks)


def _summary(overview: Overview) -> str:
    alive = sum(node.alive for node in overview.nodes)
    return (
        f"streaming {overview.streaming}  waiting {overview.waiting}  tokens {overview.tokens}  nodes {alive}  "
        f"delivering {size(overview.rate)}/s"
    )


def _more(overview: Overview) -> list[str]:
    more = overview.streaming + overview.waiting - min(len(overview.transfers), ROWS_MOST)
    return [f"and {more} more"] if more > 0 else []


def transfer_lines(transfers: Iterable[Progress], viewer: Viewer) -> list[str]:
    rows = [("ID", "STATE", "MOVED", "", "RATE", "FOR", "UPLOADER", "DOWNLOADER", "TOKEN", "NAME")]
    rows += [
        (
            transfer.id,
            transfer.state,
            _moved(transfer),
            _percent(transfer),
            f"{size(transfer.rate)}/s" if transfer.state is State.STREAMING else "-",
            duration(transfer.seconds),
            transfer.uploader,
            transfer.downloader or "-",
            viewer.token(transfer.token),
            viewer.name(transfer.name),
        )
        for transfer in transfers
    ]
    return _aligned(rows if viewer.names else [row[:-1] for row in rows])


def node_lines(nodes: Iterable[NodeReport]) -> list[str]:
    rows = [("NODE", "STATE", "STREAMING", "WAITING", "IN", "OUT", "COMPLETE", "ENDED", "VERSION")]
    rows += [
        (
            node.node,
            "alive" if node.alive else "lost",
            str(node.streaming),
            str(node.waiting),
            f"{size(node.rate_in)}/s",
            f"{size(node.rate_out)}/s",
            str(node.complete),
            str(node.ended),
            node.version,
        )
        for node in nodes
    ]
    return _aligned(rows)


def token_lines(lives: Iterable[TokenLife], viewer: Viewer) -> list[str]:
    rows = [("TOKEN", "EXPIRES IN", "USES")]
    rows += [(viewer.token(life.token), duration(life.seconds), str(life.uses)) for life in lives]
    return _aligned(rows)


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


# -- HTML --------------------------------------------------------------------------------------------------


def as_html(overview: Overview, viewer: Viewer, *, node: str, clock: str) -> str:
    """The page for a browser, with `PAGE_POLICY` as its policy.  `clock`: the time of day, `12:34:56`."""
    who = "operator" if viewer.names else '<a href="?admin">operator</a>' if viewer.may_sign_in else ""
    tiles = {
        "streaming": str(overview.streaming),
        "waiting": str(overview.waiting),
        "tokens": str(overview.tokens),
        "delivering": f"{size(overview.rate)}/s",
        "nodes": str(sum(report.alive for report in overview.nodes)),
    }
    return string.Template(_TEMPLATE).substitute(
        title=f"relay: {overview.streaming} streaming, {overview.waiting} waiting",
        who=who,
        tiles="".join(f"<div><dt>{name}</dt><dd>{escape(value)}</dd></div>" for name, value in tiles.items()),
        sections=_transfers(overview, viewer) + _nodes(overview) + _tokens(overview, viewer),
        node=escape(node),
        clock=clock,
    )


def _transfers(overview: Overview, viewer: Viewer) -> str:
    heads = ["State", "Moved", "Rate", "For", "From → to", "Token"] + ["Name"] * viewer.names
    rows = [
        [
            _state(transfer.state),
            _bar(transfer),
            f"{size(transfer.rate)}/s" if transfer.state is State.STREAMING else "",
            duration(transfer.seconds),
            f"{_code(transfer.uploader)} → {_code(transfer.downloader) if transfer.downloader else '…'}",
            _code(viewer.token(transfer.token)),
        ]
        + [f"<bdi>{escape(unquote(transfer.name))}</bdi>"] * viewer.names
        for transfer in overview.transfers[:ROWS_MOST]
    ]
    total = overview.streaming + overview.waiting
    return _section("Transfers", heads, rows, total, "Nobody is transferring anything.")


def _nodes(overview: Overview) -> str:
    heads = ["State", "Node", "Streaming", "Waiting", "In", "Out", "Complete", "Version"]
    rows = [
        [
            _state("alive" if node.alive else "lost"),
            _code(node.node),
            str(node.streaming),
            str(node.waiting),
            f"{size(node.rate_in)}/s",
            f"{size(node.rate_out)}/s",
            f"{node.complete} of {node.ended}",
            escape(node.version),
        ]
        for node in overview.nodes
    ]
    return _section("Nodes", heads, rows, len(rows), "No node has reported yet.")


def _tokens(overview: Overview, viewer: Viewer) -> str:
    rows = [[_code(viewer.token(life.token)), duration(life.seconds), str(life.uses)] for life in overview.lives]
    return _section("Tokens", ["Token", "Expires in", "Uses"], rows, overview.tokens, "There is no token.")


def _section(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]], total: int, empty: str) -> str:
    """A table of cells that are HTML already.  On a phone each row is a card, and `data-label` its captions."""
    if not rows:
        return f'<section><h2>{title}</h2><p class="empty">{empty}</p></section>\n'
    note = f"<small>{len(rows)} of {total}</small>" if total > len(rows) else f"<small>{len(rows)}</small>"
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    body = "\n".join(
        "<tr>"
        + "".join(f'<td data-label="{name}"><div>{cell}</div></td>' for name, cell in zip(heads, row, strict=True))
        + "</tr>"
        for row in rows
    )
    table = f"<table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table>"
    return f"<section><h2>{title}{note}</h2>\n{table}</section>\n"


def _state(state: str) -> str:
    return f'<span class="state {state}">{state}</span>'


def _code(text: str) -> str:
    return f"<code>{escape(text)}</code>"


def _bar(transfer: Progress) -> str:
    if transfer.state is State.WAITING:
        return "" if transfer.length is None else size(transfer.length)
    share = transfer.share
    bar = "" if share is None else f'<progress value="{share:.4f}" max="1">{_percent(transfer)}</progress>'
    return bar + _moved(transfer)
