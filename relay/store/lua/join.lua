-- Joins one download to a waiting upload, from byte offset `start` on: waiting becomes streaming, and the two streams of
-- the leg are made. If the uploader is away, the download is attached, and joins when the uploader has returned.
-- Returns: joined · attached · taken (the upload has another download) · absent (that upload, or that leg, has ended)
-- A repeat by the same joiner (its reply was lost) returns joined.
local token, transfer, chunks, acks = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local id, name, joiner, node, joined_ms, lease_ms = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local leg, start = ARGV[7], ARGV[8]

local stored = redis.call('HMGET', transfer, 'id', 'state', 'joiner', 'leg', 'legs', 'joined')
local state, holder = stored[2], stored[3]
if stored[1] ~= id or (stored[4] or '0') ~= leg then return 'absent' end
if holder and holder ~= joiner then return 'taken' end
if state ~= 'waiting' and state ~= 'interrupted' then return holder and 'joined' or 'taken' end
if state == 'interrupted' then
  redis.call('HSET', transfer, 'downloader', node, 'joiner', joiner)
else
  redis.call('HSET', transfer, 'state', 'streaming', 'downloader', node, 'joiner', joiner, 'position', start,
    'legs', (stored[5] or 0) + 1, 'joined', stored[6] or now_s())
end
redis.call('HDEL', token, 'wanted:' .. name)  -- all downloads that waited for the name have been woken
if state == 'interrupted' then return 'attached' end
redis.call('PEXPIRE', transfer, joined_ms)
redis.call('XADD', acks, '0-1', 'joined', node)
redis.call('PEXPIRE', acks, lease_ms)
-- The empty stream is made here, with its TTL, so that the writer can use NOMKSTREAM: a write to a transfer that has
-- ended makes no key. Making and destroying a group is how Redis makes an empty stream whose last ID is 0-0.
redis.call('XGROUP', 'CREATE', chunks, 'none', '$', 'MKSTREAM')
redis.call('XGROUP', 'DESTROY', chunks, 'none')
redis.call('PEXPIRE', chunks, joined_ms)
return 'joined'
