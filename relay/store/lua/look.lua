-- Looks a name up for a download, a HEAD or a DELETE. A download's first look is a use of the token.
-- Returns: found, the transfer's fields, NOW in ms · absent · no_token · crowded (the token has its maximum of names
--   at work)
-- If there is no transfer and a download waits for one on `node`, that is recorded in the same step: the upload that
-- claims the name then wakes that node.
local token, transfer = KEYS[1], KEYS[2]
local use_ms, most_ms, name, node = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3], ARGV[4]
local most_names, proof = tonumber(ARGV[5]), ARGV[6]

local limits = known(token, proof)
if not limits then return {'no_token'} end
local count = redis.call('HLEN', token)
if use_ms > 0 then use(token, use_ms, most_ms, limits.ends) end
local fields = redis.call('HGETALL', transfer)
if #fields > 0 then return {'found', fields, now_ms()} end
if node ~= '' then
  local field = 'wanted:' .. name
  local others = redis.call('HGET', token, field)
  if not others and not room(count, smaller(most_names, limits.names)) then return {'crowded'} end
  if not others then
    redis.call('HSET', token, field, node)
  elseif not has_word(others, node) then
    redis.call('HSET', token, field, others .. ' ' .. node)
  end
end
return {'absent'}
