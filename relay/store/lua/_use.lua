-- Shared by the verbs that count as a use of a token; put before them, and after _now, when they are loaded.
-- Adds `add` ms to the token's life, up to `most` ms from now, and not beyond `ends`, in Unix seconds, unless that is 0.
-- It never shortens the life.
local function use(token, add, most, ends)
  redis.call('HINCRBY', token, 'uses', 1)
  if ends > 0 then most = math.min(most, ends * 1000 - now_ms()) end
  local left = redis.call('PTTL', token)
  redis.call('PEXPIRE', token, math.max(left, math.min(left + add, most)))
end
