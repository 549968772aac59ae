"""Sizes, times and progress, as words for people."""

from relay.cluster.progress import Progress
from relay.states import State


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
    return f"{duration(seconds)} ago" if seconds else "now"


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
    """Return a share from 0 to 1 in words: `25%`. Return an empty string if it is unknown."""
    return "" if share is None else f"{100 * share:.0f}%"
