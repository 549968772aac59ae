-- Replaces a node's report of the transfers whose uploads it holds: ID, JSON, ID, JSON …
-- Returns: 1
local uploads = KEYS[1]
local ttl_ms = ARGV[1]

redis.call('DEL', uploads)
if #ARGV > 1 then
  redis.call('HSET', uploads, unpack(ARGV, 2))
  redis.call('PEXPIRE', uploads, ttl_ms)
end
return 1
