-- Counts one for an address, unless it has reached its limit: a sliding window made of two counters.
-- Returns: 0, or the milliseconds to wait because the limit is reached
-- The count of the window before this one weighs as much as the part of it that is still within one window's length
-- of now. An address's first window begins with the first thing that is counted.
-- `is_counted` is 0 if this only asks: then nothing is written.
-- A repeat (its reply was lost) counts twice, which errs on the safe side.
local counter = KEYS[1]
local most, window_ms, is_counted = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3] == '1'

local now = now_ms()
local stored = redis.call('HMGET', counter, 'begun', 'count', 'before')
local begun, count, before = tonumber(stored[1]) or now, tonumber(stored[2]) or 0, tonumber(stored[3]) or 0
if now - begun >= 2 * window_ms then
  begun, count, before = now, 0, 0
elseif now - begun >= window_ms then
  begun, count, before = begun + window_ms, 0, count
end
local left = window_ms - math.max(0, now - begun)  -- max: Redis's clock may have been set back
if math.floor(before * left / window_ms) + count >= most then
  -- By then the window before weighs one less; if it was empty, this window ends and begins to weigh less.
  local wait = before > 0 and left % (window_ms / before) or left
  return math.max(1, math.ceil(wait))
end
if is_counted then
  redis.call('HSET', counter, 'begun', begun, 'count', count + 1, 'before', before)
  redis.call('PEXPIRE', counter, 2 * window_ms)
end
return 0
