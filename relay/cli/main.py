"""`relay`, the group of all commands."""

import click

from relay import __version__
from relay.cli.operate import cancel, check, nodes, ps, revoke, tokens
from relay.cli.secret import secret
from relay.cli.serve import serve


@click.group()
@click.version_option(__version__, prog_name="relay")
def main() -> None:
    """An HTTP streaming relay that scales out."""


for command in (serve, ps, nodes, tokens, cancel, revoke, check, secret):
    main.add_command(command)
