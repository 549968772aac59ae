"""The command line: `relay serve` and the operators' commands.

Begin with `main`, then `serve` (one node) and `operate` (the operators' commands).

May import: everything.
"""
