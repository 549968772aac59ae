-- Joins one download to a waiting upload: waiting becomes streaming, and the two streams come into being.
-- Answers: joined · taken (it streams to another) · absent (that upload is over)
-- A repeat by the same joiner (its reply was lost) answers joined.
local token, transfer, chunks, acks = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local id, name, joiner, node, stream_ms, lease_ms = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]

local now = redis.call('HMGET', transfer, 'id', 'state', 'joiner')
if now[1] ~= id then return 'absent' end
if now[3] == joiner then return 'joined' end
if now[2] ~= 'waiting' then return 'taken' end
redis.call('HSET', transfer, 'state', 'streaming', 'downloader', node, 'joiner', joiner,
  'joined', redis.call('TIME')[1])
redis.call('HDEL', token, 'wanted:' .. name)  -- all who waited for it have been woken
redis.call('PEXPIRE', transfer, stream_ms)
redis.call('XADD', acks, '0-1', 'joined', node)
redis.call('PEXPIRE', acks, lease_ms)
-- The empty stream exists from here on, with its TTL, so that the writer can say NOMKSTREAM: a write to a
-- transfer that is over makes no key.  A group made and destroyed is how Redis makes an empty stream at 0-0.
redis.call('XGROUP', 'CREATE', chunks, 'none', '$', 'MKSTREAM')
redis.call('XGROUP', 'DESTROY', chunks, 'none')
redis.call('PEXPIRE', chunks, stream_ms)
return 'joined'
