-- Adds a node's heartbeat to the list of nodes, and returns the list.
-- Returns: NOW in ms, (NODE, AGE in ms, NODE, AGE …)
-- The command that needs no memory comes first: see beat.lua.
local nodes = KEYS[1]
local node, forget_ms, ttl_ms = ARGV[1], tonumber(ARGV[2]), ARGV[3]

local now = now_ms()
redis.call('ZREMRANGEBYSCORE', nodes, '-inf', string.format('%.3f', (now - forget_ms) / 1000))
redis.call('ZADD', nodes, string.format('%.3f', now / 1000), node)
redis.call('PEXPIRE', nodes, ttl_ms)
return {now, ages(nodes, now)}
