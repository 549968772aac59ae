"""The command line: `relay serve`, `relay send` and `receive`, and the operators' commands.

Begin with `main`, then `serve` (one node), `send` and `receive` (see `relay.client`) and `operate` (for operators).

May import: everything.
"""
