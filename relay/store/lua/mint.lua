-- Makes a token.
-- Answers: 1
local token = KEYS[1]
local life_ms = ARGV[1]
redis.call('HSET', token, 'created', redis.call('TIME')[1], 'uses', 0, 'bytes', 0)
redis.call('PEXPIRE', token, life_ms)
return 1
