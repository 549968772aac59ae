"""An HTTP streaming relay that scales out. Start reading at `app`, or at `states` and the folder `transfer`."""

from importlib.metadata import version

__version__ = version("relay")
