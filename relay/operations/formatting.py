"""Sizes, times and progress, as words for people."""

import math
from collections.abc import Iterable, Sequence

from relay.cluster.progress import STEP, Progress
from relay.operations.eviction import ADVICE
from relay.states import State
from relay.store.servers import ServerFacts

#: Seconds after which a rate of 0 means that nothing moves. Before, it may not be known yet.
_MEASURED = 5.0
#: Seconds of the longest time to go that is worth a figure.
_LONGEST = 30 * 24 * 3600
#: How full Redis's memory may be before that is worth a warning, from 0 to 1.
_FULL = 0.9
#: One character for each height of a line of bars; the first is for 0.
_BARS = "▁▂▃▄▅▆▇█"


def size(count: float) -> str:
    """Return a number of bytes in words: `999 B`, `1.5 MiB`."""
    if count < 1024:  # noqa: PLR2004
        return f"{count:.0f} B"
    for unit in ("KiB", "MiB", "GiB"):
        count /= 1024
        if count < 1000:  # noqa: PLR2004 (four digits are one too many to read)
            return f"{count:.1f} {unit}"
    return f"{count / 1024:.1f} TiB"


def duration(seconds: float) -> str:
    """Return a number of seconds in words: `42 s`, `3 min 20 s`, `1 h 05 min`, `2 d 3 h`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def ago(seconds: float) -> str:
    """Return the age of a report in words: `now`, `2 s ago`."""
    return f"{duration(seconds)} ago" if round(seconds) else "now"


def moved(transfer: Progress) -> str:
    """Return how many bytes of a transfer have been delivered, in words. Of one that has not begun, return its size."""
    if not_begun(transfer):
        return "" if transfer.length is None else size(transfer.length)
    if transfer.length is None:
        return size(transfer.delivered)
    return f"{size(transfer.delivered)} of {size(transfer.length)}"


def not_begun(transfer: Progress) -> bool:
    """Return whether a transfer still waits for its first downloader, so that there is no progress to show."""
    return transfer.state is State.WAITING and not transfer.delivered


def percent(share: float | None) -> str:
    """Return a share from 0 to 1 in words: `25%`, and `100%` only of all. Return an empty string if it is unknown."""
    return "" if share is None else f"{math.floor(100 * share)}%"


def speed(transfer: Progress) -> str:
    """Return the rate of a transfer in words: `1.5 MiB/s`. Return an empty string if it has none that is known."""
    is_known = transfer.rate > 0 or transfer.seconds >= _MEASURED
    return f"{size(transfer.rate)}/s" if transfer.state is State.STREAMING and is_known else ""


def left(transfer: Progress) -> str:
    """Return how long a transfer takes still, or when it gives up waiting for a side, in words; empty if unknown."""
    if transfer.left is not None:
        return f"gives up in {duration(max(1, transfer.left))}"
    if (remaining := transfer.remaining) is None:
        return ""
    return duration(max(1, math.ceil(remaining))) if remaining <= _LONGEST else "more than 30 d"


def alarms(servers: Iterable[ServerFacts]) -> list[str]:
    """Return what is wrong with the memory of Redis, and what to do."""
    lines = []
    for server in servers:
        if server.evicts:
            lines.append(f"Redis has maxmemory-policy {server.policy}: {ADVICE}.")
        if (server.share or 0) >= _FULL:
            lines.append(
                f"Redis's memory is {percent(server.share)} full. A full one takes no new transfers (503), and holds "
                "back those that run: raise maxmemory, or lower RELAY_WINDOW."
            )
    return lines


def bars(counts: Sequence[int]) -> str:
    """Return a line of bars, as high as the numbers."""
    most, steps = max(counts, default=0), len(_BARS) - 1
    return "".join(_BARS[math.ceil(count * steps / most) if most else 0] for count in counts)


def history(counts: Sequence[int]) -> str:
    """Return the bytes of the last five minutes in words."""
    if not any(counts):
        return "nothing"
    return f"{size(sum(counts))}, at most {size(max(counts) / STEP)}/s"
