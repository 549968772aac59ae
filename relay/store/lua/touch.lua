-- Says whether a transfer lives, as the side that asks knows it, and renews what this side has to keep alive.
-- Answers: live, STATE, DOWNLOADER, ID of the last acknowledgement · ended, OUTCOME, DELIVERED
--   · revoked, STATE (it lives, but its token is gone) · lost
-- Lost is also a transfer that Redis has, but not as this side knows it: Redis was rolled back, or one stream
-- has expired.  An upload that streams says `written`, the ID of its last entry, a download its `joiner`.  Each
-- renews its own stream, so that one which is gone without a word is missed when that expires.
local token, transfer, chunks, acks = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local id, written, joiner, position = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local floor_ms, stream_ms = tonumber(ARGV[5]), ARGV[6]

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
if now[1] ~= id then
  -- Each side looks where the end is left for it: the other stream its own side may have deleted.  But `complete` in
  -- the chunks is the uploader's word: it does not end a download.
  -- Behind it may stand what the uploader's side was just about to write: `BATCH` chunks and its own end.
  for _, entry in ipairs(redis.call('XREVRANGE', joiner ~= '' and chunks or acks, '+', '-', 'COUNT', 6)) do
    if entry[2][1] == 'end' and (joiner == '' or entry[2][2] ~= 'complete') then
      return {'ended', entry[2][2], entry[2][4]}
    end
  end
  return {'lost'}
end
if redis.call('EXISTS', token) == 0 and now[2] ~= 'finishing' then return {'revoked', now[2]} end
if now[2] ~= 'waiting' then
  if redis.call('EXISTS', chunks, acks) < 2 then return {'lost'} end
elseif written ~= '' or joiner ~= '' then
  return {'lost'}
end
if joiner ~= '' then
  if now[4] ~= joiner then return {'lost'} end
  redis.call('PEXPIRE', acks, stream_ms)
  -- What is acknowledged makes room in the upload's window, so it is trimmed first.
  redis.call('XTRIM', chunks, 'MINID', '=', position .. '-1')
  -- Where the bytes do not come through Redis this is how it learns of them.  An error is no matter: it has that
  -- already, or no memory for it now.
  redis.pcall('XADD', acks, 'MAXLEN', 1, position .. '-0', 'to', position)
elseif written ~= '' then
  if not has_all_written() then return {'lost'} end
  if redis.call('PTTL', token) < floor_ms then redis.call('PEXPIRE', token, floor_ms) end
  redis.call('PEXPIRE', transfer, stream_ms)
  redis.call('PEXPIRE', chunks, stream_ms)
end
local acked = redis.call('XREVRANGE', acks, '+', '-', 'COUNT', 1)[1]
return {'live', now[2], now[3] or '', acked and acked[1] or '0-0'}
