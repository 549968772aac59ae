-- Ends a leg because its download has left, and may come back: the upload waits for it, or for its own uploader.
-- Returns: broken, LEG (the next one), UPLOADER · moved, LEG (its streams are those of that leg)
--   · kept (this upload cannot go on, so the transfer has to end) · gone (that download is over)
-- The caller is the download `joiner` itself, or whoever has found that its node or its client is dead.
-- A repeat (its reply was lost) returns gone.
local token, transfer, chunks, acks = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local id, joiner, leg, position, linger_ms, wait_ms = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], tonumber(ARGV[6])

local stored = redis.call('HMGET', transfer, 'id', 'joiner', 'state', 'leg', 'rejoins', 'upload', 'unread', 'position',
  'uploader')
local state, unread = stored[3], stored[7]
if stored[1] ~= id or stored[2] ~= joiner then return {'gone'} end
if (stored[4] or '0') ~= leg then return {'moved', stored[4] or '0'} end
if state == 'waiting' or state == 'interrupted' then  -- it was attached
  redis.call('HDEL', transfer, 'joiner', 'downloader')
  return {'broken', leg, stored[9] or ''}
end
if not stored[5] or (unread and not stored[6]) then return {'kept'} end
redis.call('PEXPIRE', transfer, wait_ms)  -- first, because it needs no memory: see beat.lua
local delivered = delivered_of(acks, position, stored[8] or '0')
local following = string.format('%.0f', leg + 1)
redis.call('HDEL', transfer, 'joiner', 'downloader', 'unread')
redis.call('HSET', transfer, 'state', unread and 'interrupted' or 'waiting', 'leg', following, 'position', delivered)
if redis.call('PTTL', token) < wait_ms then redis.call('PEXPIRE', token, wait_ms) end
if unread then
  redis.call('UNLINK', acks)
else
  mark(acks, 'broken', delivered, string.match(last_id(chunks), '^%d+'), linger_ms, following)
end
redis.call('UNLINK', chunks)
return {'broken', following, stored[9] or ''}
