"""`relay secret`: make a secret for RELAY_TOKEN_SECRETS_FILE."""

import sys

import click

from relay.access import SECRET_LENGTH, random_word
from relay.secrets_file import NAME, secret_digest

_USAGE = 2


@click.command()
@click.argument("name")
@click.option("--stdin", "from_stdin", is_flag=True, help="take a secret that exists from standard input")
def secret(*, name: str, from_stdin: bool) -> None:
    """Make a secret that lets NAME make tokens.

    The secret is printed on the terminal (standard error), this once. What goes into the file of
    RELAY_TOKEN_SECRETS_FILE is printed on standard output, and has only its digest:

        relay secret alice >> secrets.toml
    """
    if not NAME.fullmatch(name):
        click.echo("relay: NAME must have 1 to 64 letters, digits, dots, dashes or underscores", err=True)
        sys.exit(_USAGE)
    word = sys.stdin.readline().rstrip("\r\n") if from_stdin else random_word(SECRET_LENGTH)
    if len(word) < 8:  # noqa: PLR2004 (as for RELAY_TOKEN_SECRET)
        click.echo("relay: a secret must have at least 8 characters", err=True)
        sys.exit(_USAGE)
    if not from_stdin:
        click.echo(f"The secret of {name}, which is nowhere else: {word}", err=True)
    table = f"[{name}]" if "." not in name else f'["{name}"]'
    click.echo(f'{table}\ndigest = "{secret_digest(word)}"')
