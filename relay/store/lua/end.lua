-- Ends a transfer: the name is free at once, and both sides find the outcome at the end of their streams.
-- Answers: ended, NOW, DELIVERED, then the transfer's fields · kept (it is in none of the states `within`) · gone
-- `id` may be the transfer's or its joiner's: a download whose join was not answered knows only its own.
-- `tell` leaves word even where there are no streams yet, for an upload that waits and is ended by another.
-- `mine` names the streams that only the caller reads: they are deleted, whoever has ended the transfer.
local token, transfer, chunks, acks = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local id, name, outcome, linger_ms, position = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local within, tell, mine = ARGV[6], ARGV[7] == '1', ARGV[8]

local function is_mine(what) return string.find(mine, what, 1, true) end

local function forget()
  if is_mine('chunks') then redis.call('UNLINK', chunks) end
  if is_mine('acks') then redis.call('UNLINK', acks) end
end

local now = redis.call('HMGET', transfer, 'id', 'joiner', 'state', 'unread')
if not now[1] or (now[1] ~= id and now[2] ~= id) then
  forget()
  return {'gone'}
end
if not string.find(within, now[3], 1, true) then
  -- The caller goes, and whoever ends the transfer has nobody to leave word for.
  if is_mine('acks') then redis.pcall('HSET', transfer, 'unread', 'acks') end
  return {'kept'}
end
if now[4] then mine = mine .. now[4] end
local fields = redis.call('HGETALL', transfer)
redis.call('DEL', transfer)
redis.call('HDEL', token, 'transfer:' .. name)
local delivered = position
if now[3] ~= 'waiting' then
  local last = redis.call('XREVRANGE', acks, '+', '-', 'COUNT', 1)[1]
  local acked = last and string.match(last[1], '^%d+') or '0'
  if tonumber(acked) > tonumber(position) then delivered = acked end
  -- No acknowledgement is beyond what was written: one that is under way must not drive out the marker.
  local written = string.match(last_id(chunks), '^%d+')
  if not is_mine('chunks') then mark(chunks, outcome, delivered, '0', linger_ms) end
  if not is_mine('acks') then mark(acks, outcome, delivered, written, linger_ms) end
elseif tell and not is_mine('acks') then
  mark(acks, outcome, delivered, position, linger_ms)
end
forget()
-- Not where Redis is out of memory: to be ended is more than to be counted.
if redis.call('EXISTS', token) == 1 then redis.pcall('HINCRBY', token, 'bytes', delivered) end
return {'ended', redis.call('TIME')[1], delivered, fields}
