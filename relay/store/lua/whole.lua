-- Writes a whole upload, which is small, and its end; and makes the transfer finishing in the name of its download, which
-- then need not ask for the last bytes: see finish.lua.
-- Returns: 1, or 0 if the transfer, or this leg of it, has ended
-- A repeat (its reply was lost) returns 1 and writes nothing.
local transfer, chunks = KEYS[1], KEYS[2]
local id, leg, offset, data = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

local stored = redis.call('HMGET', transfer, 'id', 'leg', 'state')
if stored[1] ~= id or (stored[2] or '0') ~= leg then return 0 end
if stored[3] == 'finishing' then return 1 end
if stored[3] ~= 'streaming' then return 0 end
if not redis.call('XADD', chunks, 'NOMKSTREAM', offset .. '-0', 'd', data) then return 0 end
redis.call('XADD', chunks, offset .. '-1', 'end', 'complete', 'state', 'finishing')
redis.call('HSET', transfer, 'state', 'finishing')
return 1
