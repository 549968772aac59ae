-- Says whether a transfer lives; where `stream_ms` is not 0 and it streams, renews it and the token's least life.
-- Answers: live, STATE, DOWNLOADER · ended, OUTCOME, ID of the end marker · revoked (the token is gone) · lost (so is the transfer)
local token, transfer, chunks, acks = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local id, floor_ms, stream_ms = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])

local now = redis.call('HMGET', transfer, 'id', 'state', 'downloader')
if now[1] ~= id then
  local last = redis.call('XREVRANGE', acks, '+', '-', 'COUNT', 1)[1]
  if last and last[2][1] == 'end' then return {'ended', last[2][2], last[1]} end
  return {'lost'}
end
if redis.call('EXISTS', token) == 0 then return {'revoked'} end
if stream_ms > 0 and now[2] == 'streaming' then
  if redis.call('PTTL', token) < floor_ms then redis.call('PEXPIRE', token, floor_ms) end
  redis.call('PEXPIRE', transfer, stream_ms)
  redis.call('PEXPIRE', chunks, stream_ms)
  redis.call('PEXPIRE', acks, stream_ms)
end
return {'live', now[2], now[3] or ''}
