-- Says that a node is alive, and how it does.
-- Answers: 1
local node = KEYS[1]
local ttl_ms = ARGV[1]
redis.call('HSET', node, unpack(ARGV, 2))
redis.call('PEXPIRE', node, ttl_ms)
return 1
