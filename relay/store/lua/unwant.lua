-- Records that no download waits on a node for an upload of this name any more.
-- Returns: 1
local token = KEYS[1]
local name, node = ARGV[1], ARGV[2]

local field = 'wanted:' .. name
local nodes = {}
for other in string.gmatch(redis.call('HGET', token, field) or '', '%S+') do
  if other ~= node then nodes[#nodes + 1] = other end
end
if #nodes > 0 then
  redis.call('HSET', token, field, table.concat(nodes, ' '))
else
  redis.call('HDEL', token, field)
end
return 1
