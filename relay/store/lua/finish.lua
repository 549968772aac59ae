-- A download asks whether it may hand over the last bytes: from then on nobody but it can end the transfer.
-- Answers: finishing · gone (the transfer is over, or streams to another)
-- A repeat (its reply was lost) answers finishing.
local transfer = KEYS[1]
local id, joiner, stream_ms = ARGV[1], ARGV[2], ARGV[3]

local now = redis.call('HMGET', transfer, 'id', 'joiner')
if now[1] ~= id or now[2] ~= joiner then return 'gone' end
redis.call('PEXPIRE', transfer, stream_ms)  -- first, because it needs no memory: see beat.lua
redis.call('HSET', transfer, 'state', 'finishing')
return 'finishing'
