-- Corrects the bytes that a token has reserved, if transfers have vanished without their end: their keys expired.
-- Returns: 1, or 0 if the reserved bytes have changed since the caller read them
local token = KEYS[1]
local read, counted = ARGV[1], ARGV[2]

if redis.call('HGET', token, 'reserved') ~= read then return 0 end
redis.call('HSET', token, 'reserved', counted)
return 1
