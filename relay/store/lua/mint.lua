-- Makes a token.
-- Returns: 1
local token = KEYS[1]
local life_ms = ARGV[1]

redis.call('HSET', token, unpack(facts(redis.call('TIME')[1])))
redis.call('PEXPIRE', token, life_ms)
return 1
