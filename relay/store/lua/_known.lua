-- Shared by the verbs that a client's request runs; put before them when they are loaded.
-- Returns nil unless the token lives, and `proof` is the digest of its secret; otherwise the limits of this token alone:
-- its most names at work, its most bytes, the bytes of its largest upload, and when it ends (Unix seconds). 0 means none.
-- The proof is empty if the caller acts for the cluster or its operator, whom no token has to let in.
local function known(token, proof)
  local stored = redis.call('HMGET', token, 'digest', 'max_names', 'max_bytes', 'max_upload', 'ends')
  if not stored[1] or (proof ~= '' and proof ~= stored[1]) then return nil end
  local function number(i) return tonumber(stored[i] or 0) end
  return {names = number(2), bytes = number(3), upload = number(4), ends = number(5)}
end
