-- Shared by the verbs that need the time; put before them when they are loaded.
-- Return Redis's own clock in Unix seconds or milliseconds, so that the clocks of nodes need not agree. A script reads
-- it once.
local time
local function now_s()
  time = time or redis.call('TIME')
  return time[1]
end
local function now_ms()
  return now_s() * 1000 + math.floor(time[2] / 1000)
end
