-- Shared by the verbs that count as a use of a token; put before them when they are loaded.
-- Adds `add` ms to the token's life, up to `most` ms from now. It never shortens the life.
local function use(token, add, most)
  redis.call('HINCRBY', token, 'uses', 1)
  local left = redis.call('PTTL', token)
  redis.call('PEXPIRE', token, math.max(left, math.min(left + add, most)))
end
