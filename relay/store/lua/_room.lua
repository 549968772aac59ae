-- Shared by the verbs that give a token's hash a field; put before them when they are loaded.
-- Whether it has room for one more below `most` fields; 0 means that there is no limit.
local function room(token, most)
  return most == 0 or redis.call('HLEN', token) < most
end
