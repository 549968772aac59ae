-- Joins one download to a waiting upload: waiting becomes streaming, and the two streams are made.
-- Returns: joined · taken (the upload streams to another download) · absent (that upload has ended)
-- A repeat by the same joiner (its reply was lost) returns joined.
local token, transfer, chunks, acks = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local id, name, joiner, node, joined_ms, lease_ms = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]

local stored = redis.call('HMGET', transfer, 'id', 'state', 'joiner')
if stored[1] ~= id then return 'absent' end
if stored[3] == joiner then return 'joined' end
if stored[2] ~= 'waiting' then return 'taken' end
redis.call('HSET', transfer, 'state', 'streaming', 'downloader', node, 'joiner', joiner,
  'joined', now_s())
redis.call('HDEL', token, 'wanted:' .. name)  -- all downloads that waited for the name have been woken
redis.call('PEXPIRE', transfer, joined_ms)
redis.call('XADD', acks, '0-1', 'joined', node)
redis.call('PEXPIRE', acks, lease_ms)
-- The empty stream is made here, with its TTL, so that the writer can use NOMKSTREAM: a write to a transfer that has
-- ended makes no key. Making and destroying a group is how Redis makes an empty stream whose last ID is 0-0.
redis.call('XGROUP', 'CREATE', chunks, 'none', '$', 'MKSTREAM')
redis.call('XGROUP', 'DESTROY', chunks, 'none')
redis.call('PEXPIRE', chunks, joined_ms)
return 'joined'
