-- Records how long tokens live: TOKEN, LEFT in ms, TOKEN, LEFT …
-- Returns: TOKEN … that should have expired by now
-- Such a token may have been used meanwhile, so its life has to be read again. Its time is put off by
-- `pause_ms`, so that only one node reads it.
local tokens = KEYS[1]
local ttl_ms, most, pause_ms = ARGV[1], ARGV[2], tonumber(ARGV[3])

local now = now_ms()
local function record(token, left_ms)
  redis.call('ZADD', tokens, string.format('%.3f', (now + left_ms) / 1000), token)
end
for i = 4, #ARGV, 2 do
  local token, left_ms = ARGV[i], tonumber(ARGV[i + 1])
  if left_ms > 0 then record(token, left_ms) else redis.call('ZREM', tokens, token) end
end
local over = redis.call('ZRANGEBYSCORE', tokens, '-inf', string.format('%.3f', now / 1000), 'LIMIT', 0, most)
for _, token in ipairs(over) do record(token, pause_ms) end
redis.call('PEXPIRE', tokens, ttl_ms)
return over
