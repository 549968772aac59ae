-- Says that the client of an upload that waits was found alive: a refused upload may believe it.
-- Answers: 1, or 0 where the transfer is over
local transfer = KEYS[1]
local id = ARGV[1]
if redis.call('HGET', transfer, 'id') ~= id then return 0 end
local time = redis.call('TIME')
redis.call('HSET', transfer, 'vouched', time[1] * 1000 + math.floor(time[2] / 1000))
return 1
