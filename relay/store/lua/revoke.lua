-- Revokes a token.
-- Returns: the token's fields, because they name its transfers; nothing if the token was gone already
-- For a while they are kept, with the id of this revocation, so that a repeat (its reply was lost) returns them again.
-- Meanwhile the key also says that the token was revoked: it has neither expired nor been evicted.
local token, revoked = KEYS[1], KEYS[2]
local id, linger_ms, proof = ARGV[1], ARGV[2], ARGV[3]

if known(token, proof) then
  redis.call('RENAME', token, revoked)
  redis.call('PEXPIRE', revoked, linger_ms)
  redis.call('HSET', revoked, 'by', id)
end
if redis.call('HGET', revoked, 'by') ~= id then return {} end
return redis.call('HGETALL', revoked)
