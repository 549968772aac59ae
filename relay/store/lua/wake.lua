-- Puts a wake-up into a node's inbox.
-- Returns: 1
local inbox = KEYS[1]
local about, most, ttl_ms = ARGV[1], ARGV[2], ARGV[3]

redis.call('XADD', inbox, 'MAXLEN', '~', most, '*', 'about', about)
redis.call('PEXPIRE', inbox, ttl_ms)
return 1
