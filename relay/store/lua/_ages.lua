-- Shared by the verbs that list the nodes; put before them when they are loaded.
-- Returns each node with the time since its last heartbeat: NODE, AGE in ms, NODE, AGE …
local function ages(nodes, now)
  local all = redis.call('ZRANGE', nodes, 0, -1, 'WITHSCORES')
  for i = 2, #all, 2 do all[i] = math.max(0, math.floor(now - tonumber(all[i]) * 1000)) end
  return all
end
