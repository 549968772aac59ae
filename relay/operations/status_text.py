"""The status page as aligned text for a terminal.

Names stay percent-encoded: a name may contain characters that change what a terminal shows of its line.
"""

from collections.abc import Iterable, Sequence

from relay.cluster.progress import Progress
from relay.operations.formatting import ago, duration, moved, not_begun, percent, size
from relay.operations.overview import NodeReport, Overview, TokenLife
from relay.operations.viewer import Viewer
from relay.states import State


def as_text(overview: Overview, viewer: Viewer) -> str:
    """Return the whole page: a summary, then a table each of transfers, nodes and tokens."""
    blocks = [[summary(overview)]]
    if overview.shown:
        more = overview.active - len(overview.shown)
        blocks.append(transfer_lines(overview.shown, viewer) + _and_more(more))
    blocks.append(node_lines(overview.nodes))
    if overview.lives:
        more = overview.tokens - len(overview.lives)
        blocks.append(token_lines(overview.lives) + _and_more(more))
    return "\n\n".join("\n".join(block) for block in blocks)


def summary(overview: Overview) -> str:
    """Return the line of counts."""
    return (
        f"streaming {overview.streaming}  waiting {overview.waiting}  interrupted {overview.interrupted}  "
        f"tokens {overview.tokens}  nodes {overview.alive}  delivering {size(overview.rate)}/s"
    )


def _and_more(count: int) -> list[str]:
    return [f"and {count} more"] if count > 0 else []


#: What is left out first if the table of transfers is too wide. `relay cancel` needs what stays.
_LESS_NEEDED = ("UPLOADER", "DOWNLOADER", "ID", "FOR", "LEFT")


def transfer_lines(transfers: Iterable[Progress], viewer: Viewer, *, columns: int | None = None) -> list[str]:
    """Return a table of transfers, with their names if the viewer may see them.

    If it is wider than `columns` characters, leave out columns that are less needed.
    """
    rows = [("ID", "STATE", "MOVED", "", "RATE", "FOR", "LEFT", "UPLOADER", "DOWNLOADER", "TOKEN", "NAME")]
    rows += [
        (
            transfer.id,
            transfer.state,
            moved(transfer) or "-",
            "" if not_begun(transfer) else percent(transfer.share),
            f"{size(transfer.rate)}/s" if transfer.state is State.STREAMING else "-",
            duration(transfer.seconds),
            "-" if transfer.left is None else duration(max(0, transfer.left)),
            transfer.uploader,
            transfer.downloader or "-",
            transfer.token,
            transfer.name,
        )
        for transfer in transfers
    ]
    table: list[tuple[str, ...]] = [row if viewer.names else row[:-1] for row in rows]
    lines = _aligned(table)
    for title in _LESS_NEEDED:
        if columns is None or max(map(len, lines)) <= columns:
            break
        at = table[0].index(title)
        table = [row[:at] + row[at + 1 :] for row in table]
        lines = _aligned(table)
    return lines


def fitted(lines: Sequence[str], columns: int, rows: int) -> list[str]:
    """Return what a terminal of this size has room for, without its last row. Say how many lines are left out."""
    room = max(1, rows - 1)
    if len(lines) > room:
        lines = [*lines[: room - 1], f"and {len(lines) - room + 1} more"]
    return [line if len(line) <= columns else f"{line[: columns - 1]}…" for line in lines]


def node_lines(nodes: Iterable[NodeReport]) -> list[str]:
    """Return a table of nodes."""
    rows = [("NODE", "STATE", "STREAMING", "WAITING", "IN", "OUT", "COMPLETE", "ENDED", "AS OF", "VERSION")]
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
            ago(node.age),
            node.version,
        )
        for node in nodes
    ]
    return _aligned(rows)


def token_lines(lives: Iterable[TokenLife]) -> list[str]:
    """Return a table of tokens."""
    rows = [("TOKEN", "EXPIRES IN", "USES")]
    rows += [(life.token, duration(life.seconds), str(life.uses)) for life in lives]
    return _aligned(rows)


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return one line for each row, with its cells padded to the width of their columns."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
