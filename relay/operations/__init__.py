"""What operators see: the status page in its three forms, the census of all keys, and each node's report.

Begin with `overview` (the values), then `census` (how they are read from Redis).

May import: `cluster`, `store` and the root modules.
"""
