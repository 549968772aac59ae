-- Revokes a token.
-- Answers: the token's fields, for their `transfer:NAME`; empty where it was gone already
local token = KEYS[1]
local fields = redis.call('HGETALL', token)
redis.call('DEL', token)
return fields
