-- Claims a name for one upload, if the token lives and no live transfer holds the name. This is a use of the token.
-- Returns: claimed, WANTED (the nodes on which a download waits for the name), RESERVED (bytes of the token), the token's
--   own limits: BYTES, UPLOAD (bytes of one upload)
--   · busy, the holder's fields, NOW in ms · ended, OUTCOME · crowded (the token has its maximum of names at work)
--   · spent, LEFT (the bytes that the token may still have) · too_large, MOST (bytes) · no_token
-- If the token may have `most_bytes` only, the declared length is reserved. If the length is unknown, bytes are
-- reserved as they move: see reserve.lua.
-- `state` is waiting, or interrupted for an upload whose bytes come in a later request. If it `rejoins`, it goes on when
-- its downloader has left and comes back. `upload` is the digest of the address at which its uploader may return.
-- `sha256` is that of the whole file, or empty: see describe.lua.
-- A repeat with the same id (its reply was lost) returns claimed and does not use the token again. It returns ended if
-- the claim has ended meanwhile: then the outcome is in its acks.
local token, transfer, acks = KEYS[1], KEYS[2], KEYS[3]
local id, name, node, length, type_ = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local use_ms, most_ms, claim_ms, most_names = tonumber(ARGV[6]), tonumber(ARGV[7]), ARGV[8], tonumber(ARGV[9])
local most_bytes = tonumber(ARGV[10])
local state, rejoins, upload, proof, sha256 = ARGV[11], ARGV[12], ARGV[13], ARGV[14], ARGV[15]

local limits = known(token, proof)
if not limits then return {'no_token'} end
local count = redis.call('HLEN', token)
local wanted = redis.call('HGET', token, 'wanted:' .. name) or ''
local holder = redis.call('HGET', transfer, 'id')
if holder == id then
  return {'claimed', wanted, redis.call('HGET', transfer, 'reserved') or '0', limits.bytes, limits.upload}
end
local last = redis.call('XREVRANGE', acks, '+', '-', 'COUNT', 1)[1]
if last and last[2][1] == 'end' then return {'ended', last[2][2]} end
if use_ms > 0 then use(token, use_ms, most_ms, limits.ends) end
if holder then return {'busy', redis.call('HGETALL', transfer), now_ms()} end
if wanted ~= '' then count = count - 1 end  -- the name is at work already
if not room(count, smaller(most_names, limits.names)) then return {'crowded'} end
if limits.upload > 0 and (tonumber(length) or 0) > limits.upload then return {'too_large', limits.upload} end
most_bytes = smaller(most_bytes, limits.bytes)
local reserved = 0
if most_bytes > 0 then
  local left
  reserved, left = reserve(token, most_bytes, tonumber(length) or 0, math.max(1, tonumber(length) or 1))
  if not reserved then return {'spent', left} end
end
redis.call('HSET', transfer, 'id', id, 'state', state, 'uploader', node, 'hears', node, 'length', length,
  'type', type_, 'created', now_s())
if rejoins == '1' then redis.call('HSET', transfer, 'rejoins', 1) end
if upload ~= '' then redis.call('HSET', transfer, 'upload', upload) end
if sha256 ~= '' then redis.call('HSET', transfer, 'sha256', sha256) end
if limits.bytes > 0 then redis.call('HSET', transfer, 'max_bytes', limits.bytes) end
if limits.upload > 0 then redis.call('HSET', transfer, 'max_upload', limits.upload) end
if reserved > 0 then redis.call('HSET', transfer, 'reserved', string.format('%.0f', reserved)) end
redis.call('PEXPIRE', transfer, claim_ms)
redis.call('HSET', token, 'transfer:' .. name, id)
return {'claimed', wanted, reserved, limits.bytes, limits.upload}
