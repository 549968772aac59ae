-- Lets the uploader return by another request, which takes the place of the one before, whatever has become of that.
-- Returns: returned, LEG (the next one), POSITION of the downloader, DOWNLOADER, the former UPLOADER
--   · moved, LEG (its streams are those of that leg) · kept (the last bytes are on their way)
--   · gone (there is no such upload)
-- `state` is waiting if the request brings bytes, or interrupted if it only asks how far the upload is.
-- `length` is the length of the whole file, if this request knows it.
-- `reached` is the byte offset up to which the caller knows that the downloader has everything.
-- A repeat (its reply was lost) returns returned.
local token, transfer, chunks, acks = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local id, upload, sender, node, state, leg = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local linger_ms, wait_ms, length, reached = ARGV[7], tonumber(ARGV[8]), ARGV[9], ARGV[10]

local stored = redis.call('HMGET', transfer, 'id', 'upload', 'sender', 'state', 'leg', 'position', 'uploader',
  'downloader')
local before, present, position, uploader = stored[4], stored[5] or '0', stored[6] or '0', stored[7] or ''
if stored[1] ~= id or stored[2] ~= upload then return {'gone'} end
if stored[3] == sender then return {'returned', present, position, stored[8] or '', ''} end
if present ~= leg then return {'moved', present} end
if before == 'finishing' then return {'kept'} end
if before == 'interrupted' and state == 'interrupted' then return {'returned', present, position, stored[8] or '', ''} end
redis.call('PEXPIRE', transfer, wait_ms)  -- first, because it needs no memory: see beat.lua
local following = string.format('%.0f', leg + 1)
if before == 'streaming' then
  position = delivered_of(acks, position, reached)
  mark(chunks, 'broken', position, position, linger_ms, following)
  mark(acks, 'uploader_gone', position, string.match(last_id(chunks), '^%d+'), linger_ms)
end
if length ~= '' then redis.call('HSET', transfer, 'length', length) end
redis.call('HSET', transfer, 'state', state, 'leg', following, 'position', position, 'sender', sender, 'uploader', node,
  'hears', node)
if redis.call('PTTL', token) < wait_ms then redis.call('PEXPIRE', token, wait_ms) end
return {'returned', following, position, stored[8] or '', uploader}
