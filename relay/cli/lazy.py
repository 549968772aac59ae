"""A group of commands that loads the module of a command only when that is needed: `relay send` must begin at once."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import click

_INTERRUPTED = 130


class LazyGroup(click.Group):
    """`sections` maps the heading of each section of the help to its commands: name → `module:attribute`."""

    def __init__(self, *, sections: Mapping[str, Mapping[str, str]], **attributes: object) -> None:
        super().__init__(**attributes)  # type: ignore[arg-type]
        self._sections = sections

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for commands in self._sections.values() for name in commands]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        for commands in self._sections.values():
            if cmd_name in commands:
                module, _, attribute = commands[cmd_name].partition(":")
                command: click.Command = getattr(import_module(module), attribute)
                return command
        return None

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command. If it is interrupted before it can say more, end as a shell expects it."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("relay: interrupted", err=True)
            ctx.exit(_INTERRUPTED)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands of each section under its heading."""
        for heading, commands in self._sections.items():
            with formatter.section(heading):
                found = [(name, self.get_command(ctx, name)) for name in commands]
                formatter.write_dl([(name, command.get_short_help_str(80)) for name, command in found if command])
