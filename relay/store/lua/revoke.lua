-- Revokes a token.
-- Returns: the token's fields, because they name its transfers; nothing if the token was gone already
-- For a while they are kept under this revocation's own key, so that a repeat (its reply was lost) returns them again.
local token, revoked = KEYS[1], KEYS[2]
local linger_ms = ARGV[1]

if redis.call('EXISTS', token) == 1 then
  redis.call('RENAME', token, revoked)
  redis.call('PEXPIRE', revoked, linger_ms)
end
return redis.call('HGETALL', revoked)
