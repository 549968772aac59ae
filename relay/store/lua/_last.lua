-- Shared by the verbs that need the last ID of a stream; put before them when they are loaded.
-- Returns the last ID that the stream has had, even if that entry has been trimmed; 0-0 if there is no stream.
local function last_id(stream)
  if redis.call('EXISTS', stream) == 0 then return '0-0' end
  local info = redis.call('XINFO', 'STREAM', stream)
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then return info[i + 1] end
  end
end
