-- Replaces a node's report of the transfers whose uploads, or downloads, it holds: ID, TEXT, ID, TEXT …
-- Returns: 1
local report = KEYS[1]
local ttl_ms = ARGV[1]

redis.call('DEL', report)
if #ARGV > 1 then
  redis.call('HSET', report, unpack(ARGV, 2))
  redis.call('PEXPIRE', report, ttl_ms)
end
return 1
