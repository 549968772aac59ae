-- Ends a transfer: the name is free at once, and both sides find the outcome at the end of their streams.
-- Returns: ended, NOW in s, DELIVERED, the transfer's fields · kept (it is in none of the states `within`) · gone
--   · moved, LEG (its streams are those of that leg)
-- `id` may be the transfer's or its joiner's: a download whose join got no reply knows only its own.
-- If `sender` is given and another request has taken the uploader's place, the answer is gone.
-- `tell` is 1 if a waiting upload must learn of the outcome too, for which its acks stream is made.
-- `unneeded` names the streams (chunks, acks) that only the caller reads. They are deleted, whoever ends the transfer.
-- Of an upload whose uploader may return, the `result` is kept for `keep` ms, for an uploader that did not hear of it.
-- If the uploader gave the SHA-256 of the file, that is kept with it, for the downloader.
local token, transfer, chunks, acks, result = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local id, name, outcome, linger_ms, position = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local within, tell, unneeded = ARGV[6], ARGV[7] == '1', ARGV[8]
local leg, sender, transfer_id, keep_ms = ARGV[9], ARGV[10], ARGV[11], ARGV[12]

local function delete_unneeded()
  if has_word(unneeded, 'chunks') then redis.call('UNLINK', chunks) end
  if has_word(unneeded, 'acks') then redis.call('UNLINK', acks) end
end

local stored = redis.call('HMGET', transfer, 'id', 'joiner', 'state', 'unread', 'reserved', 'leg', 'sender', 'position',
  'upload', 'sha256')
local is_own = stored[1] and (stored[1] == id or stored[2] == id)
if not is_own or (sender ~= '' and (stored[7] or stored[1]) ~= sender) then
  -- Unless another connection, which has taken the caller's place, has these streams.
  if stored[1] ~= transfer_id or (stored[6] or '0') ~= leg then delete_unneeded() end
  return {'gone'}
end
if (stored[6] or '0') ~= leg then return {'moved', stored[6] or '0'} end
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
local delivered = delivered_of(acks, position, stored[8] or '0')
if state == 'streaming' or state == 'finishing' then
  -- An acknowledgement that is still under way must not replace the marker. None is beyond what was written, so the
  -- marker goes there.
  local written = string.match(last_id(chunks), '^%d+')
  if not has_word(unneeded, 'chunks') then mark(chunks, outcome, delivered, delivered, linger_ms) end
  if not has_word(unneeded, 'acks') then mark(acks, outcome, delivered, written, linger_ms) end
else
  if tell and state == 'waiting' and not has_word(unneeded, 'acks') then mark(acks, outcome, delivered, position, linger_ms) end
  -- A download that is attached waits for its uploader.
  if stored[2] and stored[2] ~= id then mark(chunks, outcome, delivered, delivered, linger_ms) end
end
delete_unneeded()
-- pcall: if Redis is out of memory, the bytes are not counted, but the transfer ends all the same.
if redis.call('EXISTS', token) == 1 then
  redis.pcall('HINCRBY', token, 'bytes', delivered)
  if reserved then redis.pcall('HINCRBY', token, 'reserved', '-' .. reserved) end
end
if stored[9] then
  local kept = redis.pcall('HSET', result, 'upload', stored[9], 'outcome', outcome, 'bytes', delivered)
  if type(kept) == 'number' and stored[10] then kept = redis.pcall('HSET', result, 'sha256', stored[10]) end
  if type(kept) == 'number' then redis.call('PEXPIRE', result, keep_ms) end
end
return {'ended', redis.call('TIME')[1], delivered, fields}
