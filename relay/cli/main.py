"""`relay`, the group of all commands."""

import click

from relay import __version__
from relay.cli.lazy import LazyGroup

_SECTIONS = {
    "Transfer files": {"send": "relay.cli.send:send", "receive": "relay.cli.receive:receive"},
    "Run the relay": {"serve": "relay.cli.serve:serve"},
    "Look after a cluster": {
        **{name: f"relay.cli.operate:{name}" for name in ("ps", "nodes", "tokens", "cancel", "revoke", "check")},
        "secret": "relay.cli.secret:secret",
    },
}


@click.group(cls=LazyGroup, sections=_SECTIONS)
@click.version_option(__version__, prog_name="relay")
def main() -> None:
    """An HTTP streaming relay that scales out."""
