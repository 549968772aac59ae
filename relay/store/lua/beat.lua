-- Says that a node is alive, and how it does.
-- Answers: 1
-- Redis that is out of memory refuses the first command of a script that could take more, but not those after a
-- write that could not: hence the PEXPIRE at the beginning.  A node shall not seem dead for lack of memory.
local node = KEYS[1]
local ttl_ms = ARGV[1]
redis.call('PEXPIRE', node, ttl_ms)
redis.call('HSET', node, unpack(ARGV, 2))
redis.call('PEXPIRE', node, ttl_ms)
return 1
