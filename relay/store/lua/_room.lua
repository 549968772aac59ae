-- Shared by the verbs that add a name to a token's hash; put before them, and after _facts, when they are loaded.
-- Returns whether fewer than `most` names are at work; 0 means that there is no limit.
local function room(token, most)
  return most == 0 or redis.call('HLEN', token) - #facts(0) / 2 < most
end
