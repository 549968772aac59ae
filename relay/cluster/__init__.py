"""This node among the others: its heartbeat, which nodes are alive, and the inbox through which they wake it.

Begin with `node`.

May import: `store` and the root modules.
"""
