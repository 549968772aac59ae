-- Makes a token. `owner` is the name of the secret that it is made with, or empty; the limits are this token's own.
-- Returns: 1, or 0 if there is another token with this id
-- A repeat (its reply was lost) returns 1.
local token = KEYS[1]
local digest, life_ms, owner = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local names, bytes, upload, longest_s = ARGV[4], ARGV[5], ARGV[6], tonumber(ARGV[7])

local holder = redis.call('HGET', token, 'digest')
if holder then return holder == digest and 1 or 0 end
local now, ends = tonumber(redis.call('TIME')[1]), 0
if longest_s > 0 then
  ends = now + longest_s
  life_ms = math.min(life_ms, longest_s * 1000)
end
redis.call('HSET', token, unpack(facts(now, digest, owner, names, bytes, upload, ends)))
redis.call('PEXPIRE', token, life_ms)
return 1
