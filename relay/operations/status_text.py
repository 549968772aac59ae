"""The status page as aligned text for a terminal.

Names stay percent-encoded: a name may contain characters that change what a terminal shows of its line.
"""

import time
from collections.abc import Collection, Iterable, Sequence

from relay.cluster.progress import Progress
from relay.operations.formatting import (
    ago,
    alarms,
    bars,
    duration,
    history,
    left,
    moved,
    not_begun,
    percent,
    size,
    speed,
)
from relay.operations.overview import NodeReport, Overview, TokenLife
from relay.operations.viewer import Viewer
from relay.store.servers import ServerFacts

#: What is left out first if the table of transfers is too wide. `relay cancel` needs what stays.
_LESS_NEEDED = ("UPLOADER", "DOWNLOADER", "ID", "FOR", "LEFT")
#: How much of a name tells it from others, so that another column is worth more than the rest of it; the minimum width
#: of names if there is no room for even that; and the maximum width to which shorter names are padded.
_ENOUGH, _NARROWEST, _WIDEST = 20, 8, 40
#: The columns whose cells end below each other.
_NUMBERS = {
    *("MOVED", "", "RATE", "LEFT", "FOR", "UP", "STREAMING", "WAITING", "INTERRUPTED", "IN", "OUT"),
    *("COMPLETE", "ENDED", "AS OF", "EXPIRES IN", "USES"),
}


def as_text(overview: Overview, viewer: Viewer) -> str:
    """Return the whole page: a summary, then a table each of transfers, nodes and tokens."""
    blocks = [[summary(overview), *facts(overview, viewer)]]
    if overview.shown:
        more = overview.active - len(overview.shown)
        blocks.append(transfer_lines(overview.shown, viewer) + _and_more(more))
    blocks.append(node_lines(overview.nodes, viewer))
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


def facts(overview: Overview, viewer: Viewer) -> list[str]:
    """Return the lines below the counts: the last five minutes, how transfers ended, and Redis."""
    silent = f"  (without {' '.join(overview.silent)})" if overview.silent else ""
    lines = [f"last 5 min  {bars(overview.history)}  {history(overview.history)}{silent}"]
    if ended := [f"{outcome} {count}" for outcome, count in overview.outcomes.items() if count]:
        lines.append("ended  " + "  ".join(ended))
    lines += [_server_line(server, viewer) for server in overview.servers or ()]
    return lines + alarms(overview.servers or ())


def _server_line(server: ServerFacts, viewer: Viewer) -> str:
    name = server.shown if viewer.names else "Redis"
    of = f" of {size(server.most)}, {percent(server.share)}" if server.most else ", of no maxmemory"
    return f"{name}  memory {size(server.used)}{of}  maxmemory-policy {server.policy or 'unknown'}"


def _and_more(count: int) -> list[str]:
    return [f"and {count} more"] if count > 0 else []


def transfer_lines(transfers: Iterable[Progress], viewer: Viewer, *, columns: int | None = None) -> list[str]:
    """Return a table of transfers, with their names if the viewer may see them.

    If it is wider than `columns` characters, shorten the names, and leave out columns that are less needed.
    """
    titles = ("STATE", "MOVED", "", "RATE", "LEFT", "FOR", "UPLOADER", "DOWNLOADER", "TOKEN", "ID")
    table: list[tuple[str, ...]] = [("NAME", *titles)]
    table += [
        (
            transfer.name,
            transfer.state,
            moved(transfer) or "-",
            "" if not_begun(transfer) else percent(transfer.share),
            speed(transfer) or "-",
            left(transfer) or "-",
            duration(transfer.seconds),
            transfer.uploader,
            transfer.downloader or "-",
            transfer.token,
            transfer.id,
        )
        for transfer in transfers
    ]
    if not viewer.names:  # then the tokens come first
        table = [(row[-2], *row[1:-2], row[-1]) for row in table]
    if columns is None:
        return _aligned(table)
    longest = max(len(row[0]) for row in table)
    for title in _LESS_NEEDED:
        if min(longest, _ENOUGH) + _width_of_others(table) > columns:
            at = table[0].index(title)
            table = [row[:at] + row[at + 1 :] for row in table]
    room = max(_NARROWEST, columns - _width_of_others(table))
    return _aligned([(_shortened(row[0], room), *row[1:]) for row in table])


def _shortened(text: str, room: int) -> str:
    return text if len(text) <= room else f"{text[: room - 1]}…"


def fitted(lines: Sequence[str], columns: int, rows: int) -> list[str]:
    """Return what a terminal of this size has room for, without its last row. Say how many lines are left out."""
    room = max(1, rows - 1)
    if len(lines) > room:
        lines = [*lines[: room - 1], f"and {len(lines) - room + 1} more"]
    return [_shortened(line, columns) for line in lines]


def node_lines(nodes: Iterable[NodeReport], viewer: Viewer) -> list[str]:
    """Return a table of nodes, with their hosts if the viewer may see them."""
    now = time.time()
    titles = ("NODE", "STATE", "UP", "STREAMING", "WAITING", "INTERRUPTED", "IN", "OUT", "COMPLETE", "ENDED")
    rows: list[tuple[str, ...]] = [(*titles, "AS OF", "VERSION", "HOST")]
    rows += [
        (
            node.node,
            node.state,
            "-" if (uptime := node.uptime(now)) is None else duration(uptime),
            str(node.streaming),
            str(node.waiting),
            str(node.interrupted),
            f"{size(node.rate_in)}/s",
            f"{size(node.rate_out)}/s",
            str(node.complete),
            str(node.ended),
            ago(node.age),
            node.version,
            node.host,
        )
        for node in nodes
    ]
    return _aligned(rows if viewer.names else [row[:-1] for row in rows])


def token_lines(lives: Iterable[TokenLife]) -> list[str]:
    """Return a table of tokens."""
    rows = [("TOKEN", "EXPIRES IN", "USES")]
    rows += [(life.token, duration(life.seconds), str(life.uses)) for life in lives]
    return _aligned(rows)


def _widths(rows: Sequence[Sequence[str]]) -> list[int]:
    """Return the width of each column. A long name makes its own line longer, and not those of all others."""
    first = max(min(len(row[0]), _WIDEST) for row in rows)
    return [first, *(max(len(row[i]) for row in rows) for i in range(1, len(rows[0])))]


def _width_of_others(rows: Sequence[Sequence[str]]) -> int:
    """Return the width of all columns but the first, with the gaps before them."""
    return sum(2 + width for width in _widths(rows)[1:])


def _aligned(rows: Sequence[Sequence[str]], numbers: Collection[str] = frozenset(_NUMBERS)) -> list[str]:
    """Return one line for each row, with its cells padded to the width of their columns, numbers on their left."""
    widths, titles = _widths(rows), rows[0]

    def padded(cell: str, title: str, width: int) -> str:
        return cell.rjust(width) if title in numbers else cell.ljust(width)

    return ["  ".join(map(padded, row, titles, widths)).rstrip() for row in rows]
