-- Revokes a token.
-- Answers: the token's fields, for their `transfer:NAME`; empty where it was gone already
-- They are kept for a while under this revocation's own key: a repeat (its reply was lost) answers them again.
local token, revoked = KEYS[1], KEYS[2]
local linger_ms = ARGV[1]
if redis.call('EXISTS', token) == 1 then
  redis.call('RENAME', token, revoked)
  redis.call('PEXPIRE', revoked, linger_ms)
end
return redis.call('HGETALL', revoked)
