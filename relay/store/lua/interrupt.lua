-- Ends a leg because the uploader has left, and may return: the transfer is interrupted, and keeps its name.
-- Returns: broken, LEG (the next one), DOWNLOADER · moved, LEG (its streams are those of that leg)
--   · kept (its uploader cannot return, or the last bytes are on their way) · gone (another request has its place)
-- A repeat (its reply was lost) returns broken.
-- `position` is the byte offset up to which the caller knows that the downloader has everything.
-- The node `keeper` waits for the uploader from now on.
-- The caller is the uploader's request `sender`, or whoever has found that its node `dead` has died.
local token, transfer, chunks, acks = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local id, sender, dead, leg, linger_ms, wait_ms = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], tonumber(ARGV[6])
local keeper, position = ARGV[7], ARGV[8]

local stored = redis.call('HMGET', transfer, 'id', 'sender', 'state', 'leg', 'upload', 'position', 'uploader',
  'downloader')
local state = stored[3]
local is_own = (stored[2] or stored[1]) == sender or (dead ~= '' and stored[7] == dead)
if stored[1] ~= id or not is_own then return {'gone'} end
if state == 'interrupted' then return {'broken', stored[4] or '0', stored[8] or ''} end
if (stored[4] or '0') ~= leg then return {'moved', stored[4] or '0'} end
if not stored[5] or state == 'finishing' then return {'kept'} end
redis.call('PEXPIRE', transfer, wait_ms)  -- first, because it needs no memory: see beat.lua
local delivered = delivered_of(acks, position, stored[6] or '0')
local following = string.format('%.0f', leg + 1)
redis.call('HSET', transfer, 'state', 'interrupted', 'leg', following, 'position', delivered, 'uploader', keeper)
if redis.call('PTTL', token) < wait_ms then redis.call('PEXPIRE', token, wait_ms) end
if state == 'streaming' then mark(chunks, 'broken', delivered, delivered, linger_ms, following) end
redis.call('UNLINK', acks)
return {'broken', following, stored[8] or ''}
