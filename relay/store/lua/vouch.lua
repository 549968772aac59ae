-- Records that the client of a waiting upload was found alive just now. Another upload of the name then need not ask.
-- Returns: 1, or 0 if the transfer has ended
local transfer = KEYS[1]
local id = ARGV[1]

if redis.call('HGET', transfer, 'id') ~= id then return 0 end
redis.call('HSET', transfer, 'vouched', now_ms())
return 1
