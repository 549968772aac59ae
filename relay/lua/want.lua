-- Says, or unsays, that a download waits on a node for an upload of this name.
-- Answers: kept · crowded (the token has as many names at work as it may) · no_token
local token = KEYS[1]
local name, node, wanted, fields_most = ARGV[1], ARGV[2], ARGV[3] == '1', tonumber(ARGV[4])

if redis.call('EXISTS', token) == 0 then return 'no_token' end
local field = 'wanted:' .. name
local others = redis.call('HGET', token, field)
if wanted and not others and not room(token, fields_most) then return 'crowded' end
local nodes = {}
for other in string.gmatch(others or '', '%S+') do
  if other ~= node then nodes[#nodes + 1] = other end
end
if wanted then nodes[#nodes + 1] = node end
if #nodes > 0 then
  redis.call('HSET', token, field, table.concat(nodes, ' '))
else
  redis.call('HDEL', token, field)
end
return 'kept'
