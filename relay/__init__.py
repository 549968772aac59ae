"""An HTTP streaming relay that scales out. Start reading at `transfer`, with `states` beside it."""

from importlib.metadata import version

__version__ = version("relay")
