-- Ends a transfer: the name is free at once, and both sides find the outcome at the end of their streams.
-- Answers: ended, NOW, DELIVERED, then the transfer's fields · kept (`only` names another state) · gone
-- `id` may be the transfer's or its joiner's: a download whose join was not answered knows only its own.
-- `tell` leaves word even where there are no streams yet, for an upload that waits and is ended by another.
local token, transfer, chunks, acks = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local id, name, outcome, linger_ms, position = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local only, tell = ARGV[6], ARGV[7] == '1'

local now = redis.call('HMGET', transfer, 'id', 'joiner', 'state')
if not now[1] or (now[1] ~= id and now[2] ~= id) then return {'gone'} end
if only ~= '' and now[3] ~= only then return {'kept'} end
local fields = redis.call('HGETALL', transfer)
redis.call('DEL', transfer)
redis.call('HDEL', token, 'transfer:' .. name)
local delivered = position
if now[3] == 'streaming' then
  local last = redis.call('XREVRANGE', acks, '+', '-', 'COUNT', 1)[1]
  local acked = last and string.match(last[1], '^%d+') or '0'
  if tonumber(acked) > tonumber(position) then delivered = acked end
  mark(chunks, outcome, '0', linger_ms)
  mark(acks, outcome, position, linger_ms)
elseif tell then
  mark(acks, outcome, position, linger_ms)
end
-- Not where Redis is out of memory: to be ended is more than to be counted.
if redis.call('EXISTS', token) == 1 then redis.pcall('HINCRBY', token, 'bytes', delivered) end
return {'ended', redis.call('TIME')[1], delivered, fields}
