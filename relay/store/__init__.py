"""Everything that talks to Redis: tokens, transfers, nodes and rates, and the streams that carry the chunks.

A node uses it through `store.Store`, whose groups of verbs run over `commands`: one Lua script for each verb, sent over
`connections`. Each of them is a `wire`, which speaks the protocol by `resp`. Only `redis_py` touches what is private in
redis-py.

`own_redis` runs the redis-server of a node that has no other.

Begin with `keys` (what is in Redis) and `lua/` (one script for each verb), then `transfers` (the verbs, typed) and
`streams` (the bytes).

May import: the root modules.
"""
