-- Ends a transfer: the name is free at once, and both sides find the outcome at the end of their streams.
-- Returns: ended, NOW in s, DELIVERED, the transfer's fields · kept (it is in none of the states `within`) · gone
-- `id` may be the transfer's or its joiner's: a download whose join got no reply knows only its own.
-- `tell` is 1 if a waiting upload must learn of the outcome too, for which its acks stream is made.
-- `unneeded` names the streams (chunks, acks) that only the caller reads. They are deleted, whoever ends the transfer.
local token, transfer, chunks, acks = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local id, name, outcome, linger_ms, position = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local within, tell, unneeded = ARGV[6], ARGV[7] == '1', ARGV[8]

local function delete_unneeded()
  if has_word(unneeded, 'chunks') then redis.call('UNLINK', chunks) end
  if has_word(unneeded, 'acks') then redis.call('UNLINK', acks) end
end

local stored = redis.call('HMGET', transfer, 'id', 'joiner', 'state', 'unread', 'reserved')
if not stored[1] or (stored[1] ~= id and stored[2] ~= id) then
  delete_unneeded()
  return {'gone'}
end
local state, unread, reserved = stored[3], stored[4], stored[5]
if not has_word(within, state) then
  -- The caller leaves, so whoever ends the transfer later need not leave the outcome in its stream.
  if has_word(unneeded, 'acks') then redis.pcall('HSET', transfer, 'unread', 'acks') end
  return {'kept'}
end
if unread then unneeded = unneeded .. ' ' .. unread end
local fields = redis.call('HGETALL', transfer)
redis.call('DEL', transfer)
redis.call('HDEL', token, 'transfer:' .. name)
local delivered = position
if state ~= 'waiting' then
  local last = redis.call('XREVRANGE', acks, '+', '-', 'COUNT', 1)[1]
  local acked = last and string.match(last[1], '^%d+') or '0'
  if tonumber(acked) > tonumber(position) then delivered = acked end
  -- An acknowledgement that is still under way must not replace the marker. None is beyond what was written, so the
  -- marker goes there.
  local written = string.match(last_id(chunks), '^%d+')
  if not has_word(unneeded, 'chunks') then mark(chunks, outcome, delivered, '0', linger_ms) end
  if not has_word(unneeded, 'acks') then mark(acks, outcome, delivered, written, linger_ms) end
elseif tell and not has_word(unneeded, 'acks') then
  mark(acks, outcome, delivered, position, linger_ms)
end
delete_unneeded()
-- pcall: if Redis is out of memory, the bytes are not counted, but the transfer ends all the same.
if redis.call('EXISTS', token) == 1 then
  redis.pcall('HINCRBY', token, 'bytes', delivered)
  if reserved then redis.pcall('HINCRBY', token, 'reserved', '-' .. reserved) end
end
return {'ended', redis.call('TIME')[1], delivered, fields}
