"""How a limit on a rate is written: `10/second`, `600/minute`, `600 per 2 hours`."""

import re
from typing import NamedTuple

_SECONDS = {
    "second": 1,
    "minute": 60,
    "hour": 3600,
    "day": 24 * 3600,
    "month": 30 * 24 * 3600,
    "year": 12 * 30 * 24 * 3600,
}
#: The digits are bounded because the numbers of Lua, with which Redis counts, are exact only up to 2^53.
_RATE = re.compile(
    rf"\s*(?P<most>[0-9]{{1,12}})\s*(?:/|per)\s*(?P<times>[0-9]{{1,4}})?\s*(?P<unit>{'|'.join(_SECONDS)})s?\s*",
    re.ASCII | re.IGNORECASE,
)


class Rate(NamedTuple):
    """At most `most` times in any `seconds`."""

    most: int
    seconds: int


def parse_rate(text: str) -> Rate | None:
    """Return the rate that a text describes, or None if it is empty: no limit. Raise ValueError."""
    if not text:
        return None
    match = _RATE.fullmatch(text)
    rate = match and Rate(int(match["most"]), int(match["times"] or 1) * _SECONDS[match["unit"].lower()])
    if not rate or 0 in rate:
        raise ValueError(f"{text!r} is not a rate")
    return rate
