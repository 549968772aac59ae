"""The terminal client: `relay send` and `relay receive` as real processes, against real nodes, curl, and liars."""
