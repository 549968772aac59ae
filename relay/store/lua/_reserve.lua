-- Shared by the verbs that reserve bytes of a token for an upload; put before them when they are loaded.
-- Reserves up to `wanted` bytes of the `most` bytes that all transfers of the token may have together, but at least
-- `least`. Returns the bytes reserved, or nil and the bytes that are left if that are fewer.
local function reserve(token, most, wanted, least)
  local stored = redis.call('HMGET', token, 'bytes', 'reserved')
  local left = math.max(0, most - tonumber(stored[1] or 0) - tonumber(stored[2] or 0))
  if left < least then return nil, left end
  local bytes = math.min(wanted, left)
  redis.call('HINCRBY', token, 'reserved', string.format('%.0f', bytes))
  return bytes
end
