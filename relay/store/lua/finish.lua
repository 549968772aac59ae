-- Lets a download hand over the last bytes, if the transfer is still its own. From then on only it ends the transfer.
-- Returns: finishing · gone (the transfer or its leg has ended, or it streams to another download)
-- A repeat (its reply was lost) returns finishing.
local transfer = KEYS[1]
local id, joiner, lease_ms = ARGV[1], ARGV[2], ARGV[3]

local stored = redis.call('HMGET', transfer, 'id', 'joiner', 'state')
if stored[1] ~= id or stored[2] ~= joiner then return 'gone' end
if stored[3] ~= 'streaming' and stored[3] ~= 'finishing' then return 'gone' end
redis.call('PEXPIRE', transfer, lease_ms)  -- first, because it needs no memory: see beat.lua
redis.call('HSET', transfer, 'state', 'finishing')
return 'finishing'
