-- Says whether a transfer lives, as the side that asks knows it, and renews what this side has to keep alive.
-- Answers: live, STATE, DOWNLOADER, ID of the last acknowledgement · ended, OUTCOME, ID of the end marker ·
-- revoked (the token is gone) · lost
-- Lost is also a transfer that Redis has, but not as this side knows it: Redis was rolled back, or one stream
-- has expired.  An upload that streams says `written`, the ID of its last entry, a download its `joiner`.  Each
-- renews its own stream, so that one which is gone without a word is missed when that expires.
local token, transfer, chunks, acks = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local id, written, joiner = ARGV[1], ARGV[2], ARGV[3]
local floor_ms, stream_ms = tonumber(ARGV[4]), ARGV[5]

local function parts(entry_id)
  local offset, sequence = string.match(entry_id, '^(%d+)-(%d+)$')
  return tonumber(offset), tonumber(sequence)
end

local function has_all_written()
  local offset, sequence = parts(last_id(chunks))
  local written_offset, written_sequence = parts(written)
  return offset > written_offset or (offset == written_offset and sequence >= written_sequence)
end

local now = redis.call('HMGET', transfer, 'id', 'state', 'downloader', 'joiner')
local last = redis.call('XREVRANGE', acks, '+', '-', 'COUNT', 1)[1]
if now[1] ~= id then
  if last and last[2][1] == 'end' then return {'ended', last[2][2], last[1]} end
  return {'lost'}
end
if redis.call('EXISTS', token) == 0 then return {'revoked'} end
if now[2] == 'streaming' then
  if redis.call('EXISTS', chunks, acks) < 2 then return {'lost'} end
elseif written ~= '' or joiner ~= '' then
  return {'lost'}
end
if joiner ~= '' then
  if now[4] ~= joiner then return {'lost'} end
  redis.call('PEXPIRE', acks, stream_ms)
elseif written ~= '' then
  if not has_all_written() then return {'lost'} end
  if redis.call('PTTL', token) < floor_ms then redis.call('PEXPIRE', token, floor_ms) end
  redis.call('PEXPIRE', transfer, stream_ms)
  redis.call('PEXPIRE', chunks, stream_ms)
end
return {'live', now[2], now[3] or '', last and last[1] or '0-0'}
