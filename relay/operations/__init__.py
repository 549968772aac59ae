"""What operators see: the status page in its three forms, the census of all keys, and the report of each node.

Begin with `overview` (the values), then `census` (how they are read from Redis), then `reports` (this node's own part).

May import: `cluster`, `store` and the root modules.
"""
