-- Lists the nodes with the time since each one's last heartbeat, by Redis's own clock, as `roll` does, and writes nothing.
-- Returns: node, AGE in milliseconds, node, AGE …
local nodes = KEYS[1]

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local all = redis.call('ZRANGE', nodes, 0, -1, 'WITHSCORES')
for i = 2, #all, 2 do all[i] = math.max(0, math.floor(now - tonumber(all[i]) * 1000)) end
return all
