"""The two sides of a transfer: how they find each other, move the bytes, and end.

Begin with `relay` (what a node does for its clients), then `upload` and `download` (one class for each side).
`finding` is how a download finds its upload, `doubt` whether an upload is still there, `ending` how transfers end, and
`drain` how a node shuts down. The states of a name are in `relay.states`.

May import: `cluster`, `store`, `server` and the root modules.
"""
