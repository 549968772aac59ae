-- Claims a name for one upload: the token must live (and is used), and no live transfer may hold the name.
-- Answers: claimed, WANTED (the nodes where a download waits for it) · busy, the holder's fields, NOW in ms
--   · ended, OUTCOME · crowded (the token has as many names at work as it may) · no_token
-- A repeat with the same id (its reply was lost) answers claimed and uses the token only once; or ended, if the
-- claim is over by then: there is word of it in its acks.
local token, transfer, acks = KEYS[1], KEYS[2], KEYS[3]
local id, name, node, length, type_ = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local use_ms, most_ms, claim_ms, fields_most = tonumber(ARGV[6]), tonumber(ARGV[7]), ARGV[8], tonumber(ARGV[9])

if redis.call('EXISTS', token) == 0 then return {'no_token'} end
local wanted = redis.call('HGET', token, 'wanted:' .. name) or ''
local holder = redis.call('HGET', transfer, 'id')
if holder == id then return {'claimed', wanted} end
local last = redis.call('XREVRANGE', acks, '+', '-', 'COUNT', 1)[1]
if last and last[2][1] == 'end' then return {'ended', last[2][2]} end
if use_ms > 0 then use(token, use_ms, most_ms) end
local time = redis.call('TIME')
if holder then return {'busy', redis.call('HGETALL', transfer), time[1] * 1000 + math.floor(time[2] / 1000)} end
if not room(token, fields_most) then return {'crowded'} end
redis.call('HSET', transfer, 'id', id, 'state', 'waiting', 'uploader', node, 'length', length, 'type', type_,
  'created', time[1])
redis.call('PEXPIRE', transfer, claim_ms)
redis.call('HSET', token, 'transfer:' .. name, id)
return {'claimed', wanted}
