-- Notes how long tokens live, and asks for some whose time by this list is over: they may have been used since.
-- Answers: TOKEN …; each is put off by `pause_ms`, so that one node only is asked about it
local tokens = KEYS[1]
local ttl_ms, most, pause_ms = ARGV[1], ARGV[2], tonumber(ARGV[3])

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function note(token, left_ms)
  redis.call('ZADD', tokens, string.format('%.3f', (now + left_ms) / 1000), token)
end
for i = 4, #ARGV, 2 do
  local token, left_ms = ARGV[i], tonumber(ARGV[i + 1])
  if left_ms > 0 then note(token, left_ms) else redis.call('ZREM', tokens, token) end
end
local over = redis.call('ZRANGEBYSCORE', tokens, '-inf', string.format('%.3f', now / 1000), 'LIMIT', 0, most)
for _, token in ipairs(over) do note(token, pause_ms) end
redis.call('PEXPIRE', tokens, ttl_ms)
return over
