"""The status page.  Pure: what is live goes in, a page comes out."""

from collections.abc import Mapping, Sequence

from relay.states import State
from relay.store import Transfer


def as_text(tokens: Mapping[str, float], transfers: Sequence[Transfer]) -> str:
    """Aligned text for a terminal.  Tokens are shown by their first four characters: they are secrets.

    `tokens`: seconds left, by token.
    """
    streams = [transfer for transfer in transfers if transfer.state is State.STREAMING]
    lines = [f"{len(streams)} streaming, {len(transfers) - len(streams)} waiting, {len(tokens)} tokens", ""]
    rows: list[tuple[str, ...]] = [("TOKEN", "STATE", "BYTES", "UPLOADER", "DOWNLOADER", "NAME")]
    rows += [
        (
            _short(t.token),
            t.state,
            "?" if t.length is None else str(t.length),
            t.uploader,
            t.downloader or "-",
            t.name,
        )
        for t in sorted(transfers, key=lambda t: (t.state, t.created))
    ]
    lines += _aligned(rows) if transfers else []
    lines += [""] if transfers and tokens else []
    rows = [("TOKEN", "EXPIRES IN")]
    rows += [(_short(token), f"{left:.0f} s") for token, left in sorted(tokens.items(), key=lambda item: item[1])]
    lines += _aligned(rows) if tokens else []
    return "\n".join(lines)


def _short(token: str) -> str:
    return token[:4] + "…"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
