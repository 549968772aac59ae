-- Shared by the verbs that need the time; put before them when they are loaded.
-- Returns Redis's own clock in Unix milliseconds, so that the clocks of nodes need not agree.
local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
