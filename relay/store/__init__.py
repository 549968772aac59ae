"""Everything that talks to Redis: keys, Lua scripts, connections, streams and rates.

Begin with `keys` (what is in Redis) and `lua/` (one script for each verb), then `transfers` (the verbs, typed).

May import: the root modules.
"""
