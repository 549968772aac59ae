-- Looks at a name for a download, a HEAD or a DELETE; a download's first look uses the token.
-- Answers: found, then the transfer's fields · absent · no_token
local token, transfer = KEYS[1], KEYS[2]
local use_ms, most_ms = tonumber(ARGV[1]), tonumber(ARGV[2])

if redis.call('EXISTS', token) == 0 then return {'no_token'} end
if use_ms > 0 then use(token, use_ms, most_ms) end
local fields = redis.call('HGETALL', transfer)
if #fields == 0 then return {'absent'} end
return {'found', fields}
