-- Records in a field that the client of a waiting upload (`vouched`), or that of a download (`taken`), was found alive
-- just now. Whoever wants the name, or the upload, then need not ask.
-- Returns: 1, or 0 if the transfer has ended
local transfer = KEYS[1]
local id, field = ARGV[1], ARGV[2]

if redis.call('HGET', transfer, 'id') ~= id then return 0 end
redis.call('HSET', transfer, field, now_ms())
return 1
