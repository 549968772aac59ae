-- Looks at a name for a download, a HEAD or a DELETE; a download's first look uses the token.
-- Answers: found, the transfer's fields, NOW in ms · absent · no_token · crowded (the token has as many names at work as it
-- may)
-- Where there is none, and a download waits for it on `node`, that is noted in the same step: whoever claims the name
-- then wakes that node.
local token, transfer = KEYS[1], KEYS[2]
local use_ms, most_ms, name, node, fields_most = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3], ARGV[4], tonumber(ARGV[5])

if redis.call('EXISTS', token) == 0 then return {'no_token'} end
if use_ms > 0 then use(token, use_ms, most_ms) end
local fields = redis.call('HGETALL', transfer)
if #fields > 0 then
  local time = redis.call('TIME')
  return {'found', fields, time[1] * 1000 + math.floor(time[2] / 1000)}
end
if node ~= '' then
  local field = 'wanted:' .. name
  local others = redis.call('HGET', token, field)
  if not others and not room(token, fields_most) then return {'crowded'} end
  if not others then
    redis.call('HSET', token, field, node)
  elseif not string.find(' ' .. others .. ' ', ' ' .. node .. ' ', 1, true) then
    redis.call('HSET', token, field, others .. ' ' .. node)
  end
end
return {'absent'}
