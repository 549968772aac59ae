-- Shared by the verbs that a client's request runs; put before them when they are loaded.
-- Returns whether the token lives, and `proof` is the digest of its secret. The proof is empty if the caller acts for
-- the cluster or its operator, whom no token has to let in.
local function is_known(token, proof)
  local digest = redis.call('HGET', token, 'digest')
  return digest and (proof == '' or proof == digest)
end
