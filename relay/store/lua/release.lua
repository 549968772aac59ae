-- Removes a name from its token's hash if the transfer that the hash names is over, and the name has no other one.
-- Returns: 1
local token, transfer = KEYS[1], KEYS[2]
local id, name = ARGV[1], ARGV[2]

local field = 'transfer:' .. name
if redis.call('HGET', token, field) == id and redis.call('HGET', transfer, 'id') ~= id then
  redis.call('HDEL', token, field)
end
return 1
