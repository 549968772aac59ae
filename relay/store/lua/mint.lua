-- Makes a token.
-- Returns: 1, or 0 if there is another token with this id
-- A repeat (its reply was lost) returns 1.
local token = KEYS[1]
local digest, life_ms = ARGV[1], ARGV[2]

local holder = redis.call('HGET', token, 'digest')
if holder then return holder == digest and 1 or 0 end
redis.call('HSET', token, unpack(facts(redis.call('TIME')[1], digest)))
redis.call('PEXPIRE', token, life_ms)
return 1
