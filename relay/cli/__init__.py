"""The command line: `relay serve` and the operators' commands.

Begin with `main`.

May import: everything.
"""
