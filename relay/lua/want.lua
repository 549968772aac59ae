-- Says, or unsays, that a download waits on a node for an upload of this name.
-- Answers: 1, or 0 where the token is gone
local token = KEYS[1]
local name, node, wanted = ARGV[1], ARGV[2], ARGV[3] == '1'

if redis.call('EXISTS', token) == 0 then return 0 end
local field = 'wanted:' .. name
local nodes = {}
for other in string.gmatch(redis.call('HGET', token, field) or '', '%S+') do
  if other ~= node then nodes[#nodes + 1] = other end
end
if wanted then nodes[#nodes + 1] = node end
if #nodes > 0 then
  redis.call('HSET', token, field, table.concat(nodes, ' '))
else
  redis.call('HDEL', token, field)
end
return 1
