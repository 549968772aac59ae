-- Tells one side of a transfer whether it lives, and renews the keys that this side keeps alive.
-- Returns: live, STATE, DOWNLOADER, ID of the last acknowledgement, START of the leg, UPLOADER, JOINER
--   · ended, OUTCOME, DELIVERED · broken, LEG (this leg has ended, and that one has begun)
--   · revoked, STATE (it lives, but its token is gone) · lost
-- A transfer is also lost if Redis has it in another form than this side knows: Redis was rolled back, or one of the
-- streams has expired. A streaming upload passes `written`, the ID of its last entry; a download passes its `joiner`; an
-- upload passes its `sender`, because another request may have taken its place.
-- Each side renews its own stream, so that the stream of a side that vanished expires, and the other side notices.
-- `tail` is the number of entries at a stream's end among which the end marker is.
local token, transfer, chunks, acks = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local id, written, joiner, position = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local floor_ms, lease_ms, tail = tonumber(ARGV[5]), ARGV[6], ARGV[7]
local leg, sender = ARGV[8], ARGV[9]

local function parts(entry_id)
  local offset, sequence = string.match(entry_id, '^(%d+)-(%d+)$')
  return tonumber(offset), tonumber(sequence)
end

local function has_all_written()
  local offset, sequence = parts(last_id(chunks))
  local written_offset, written_sequence = parts(written)
  return offset > written_offset or (offset == written_offset and sequence >= written_sequence)
end

local stored = redis.call('HMGET', transfer, 'id', 'state', 'downloader', 'joiner', 'leg', 'sender', 'position',
  'uploader')
local state, downloader, present = stored[2], stored[3] or '', stored[5] or '0'
if stored[1] ~= id then
  -- Each side looks only into the stream in which the outcome is left for it: its own side may have deleted the other.
  -- But `complete` in the chunks is what the uploader says, and does not end a download.
  for _, entry in ipairs(redis.call('XREVRANGE', joiner ~= '' and chunks or acks, '+', '-', 'COUNT', tail)) do
    local fields = entry[2]
    if fields[1] == 'end' and fields[2] == 'broken' then return {'broken', fields[6]} end
    if fields[1] == 'end' and (joiner == '' or fields[2] ~= 'complete') then return {'ended', fields[2], fields[4]} end
  end
  return {'lost'}
end
if tonumber(present) < tonumber(leg) then return {'lost'} end  -- and the request before this one has its place again
if joiner == '' and (stored[6] or id) ~= sender then return {'ended', 'uploader_gone', stored[7] or '0'} end
local is_between = state == 'interrupted' or state == 'waiting'  -- two legs, for a download that has joined
if is_between and stored[4] == joiner and tonumber(position) > tonumber(stored[7] or '0') then
  -- The leg's acknowledgements did not tell it: not all of them pass through Redis. An error does not matter: the
  -- uploader begins earlier then than it needs to.
  redis.pcall('HSET', transfer, 'position', position)
  stored[7] = position
end
if present ~= leg then return {'broken', present} end
if redis.call('EXISTS', token) == 0 and state ~= 'finishing' then return {'revoked', state} end
if joiner ~= '' and stored[4] ~= joiner then return {'lost'} end
local streams = state == 'streaming' or state == 'finishing'
if streams and redis.call('EXISTS', chunks, acks) < 2 then return {'lost'} end
if not streams and written ~= '' then return {'lost'} end
if streams and joiner ~= '' then
  redis.call('PEXPIRE', acks, lease_ms)
  -- An acknowledgement makes room in the upload's window, so what is acknowledged is trimmed first.
  redis.call('XTRIM', chunks, 'MINID', '=', position .. '-1')
  -- If the bytes do not pass through Redis, this is how Redis learns of the position. An error does not matter: Redis
  -- has this position already, or has no memory for it now.
  redis.pcall('XADD', acks, 'MAXLEN', 1, position .. '-0', 'to', position)
elseif written ~= '' then
  if not has_all_written() then return {'lost'} end
  local left = redis.call('PTTL', token)
  if left < floor_ms then
    local ends = tonumber(redis.call('HGET', token, 'ends') or 0)
    if ends > 0 then floor_ms = math.min(floor_ms, ends * 1000 - now_ms()) end
    if left < floor_ms then redis.call('PEXPIRE', token, floor_ms) end
  end
  redis.call('PEXPIRE', transfer, lease_ms)
  redis.call('PEXPIRE', chunks, lease_ms)
end
local acked = redis.call('XREVRANGE', acks, '+', '-', 'COUNT', 1)[1]
return {'live', state, downloader, acked and acked[1] or '0-0', stored[7] or '0', stored[8] or '',
  stored[4] or ''}
