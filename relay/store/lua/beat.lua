-- Records that a node is alive, with facts about it: FIELD, VALUE, FIELD, VALUE …
-- Returns: 1
-- A Redis that is out of memory refuses a command that could take more memory if it is the first of a script, but
-- accepts it after a write that could not. Hence the PEXPIRE at the beginning: a node must not seem dead because Redis
-- lacks memory.
local node = KEYS[1]
local ttl_ms = ARGV[1]

redis.call('PEXPIRE', node, ttl_ms)
redis.call('HSET', node, unpack(ARGV, 2))
redis.call('PEXPIRE', node, ttl_ms)
return 1
