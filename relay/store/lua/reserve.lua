-- Reserves bytes of a token for an upload whose length is unknown, up to `total` bytes for this upload.
-- Returns: reserved, BYTES (all that are reserved for it) · spent, LEFT (the bytes that the token may still have) · gone
-- A repeat (its reply was lost) reserves nothing more.
local token, transfer = KEYS[1], KEYS[2]
local id, most, total = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])

local stored = redis.call('HMGET', transfer, 'id', 'reserved')
if stored[1] ~= id or redis.call('EXISTS', token) == 0 then return {'gone'} end
local had = tonumber(stored[2] or 0)
if had >= total then return {'reserved', stored[2]} end
most = smaller(most, tonumber(redis.call('HGET', token, 'max_bytes') or 0))
local bytes, left = reserve(token, most, total - had, 1)
if not bytes then return {'spent', left} end
return {'reserved', redis.call('HINCRBY', transfer, 'reserved', string.format('%.0f', bytes))}
