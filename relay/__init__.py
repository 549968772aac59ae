"""An HTTP streaming relay that scales out. Start reading at `app`, or at `states` and the folder `transfer`."""

#: pyproject.toml takes it from here. To look it up among the installed packages would take 30 ms of each command.
__version__ = "0.1.0"
