"""The bytes of the last minutes as bars, for a picture (SVG) in the page. Pure."""

import math
from collections.abc import Sequence
from typing import NamedTuple

#: The width of a bar with the gap behind it, the gap, and the height of the highest, in units of the picture.
_STEP, _GAP, _HEIGHT = 10, 2, 32


class Chart(NamedTuple):
    """A picture: its size, and the path that draws the bars."""

    width: int
    height: int
    path: str


def chart(counts: Sequence[int]) -> Chart:
    """Return one bar for each number. What is not nothing can be seen, however small it is beside the highest."""
    most = max(counts, default=0)
    heights = [math.ceil(count * _HEIGHT / most) if most else 0 for count in counts]
    bars = [
        f"M{at * _STEP} {_HEIGHT}v-{height}h{_STEP - _GAP}v{height}z" for at, height in enumerate(heights) if height
    ]
    return Chart(max(1, len(counts)) * _STEP - _GAP, _HEIGHT, "".join(bars))
