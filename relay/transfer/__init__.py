"""The two sides of a transfer: how they find each other, move the bytes, and end.

Begin with `relay` (what a node does for its clients), then `upload` and `download` (one class for each side).
The states of a transfer are in `relay.states`.

May import: `cluster`, `store`, `server` and the root modules.
"""
