-- Shared by the verbs that end a stream; put before them when they are loaded.
-- Appends the end marker to a stream, after its last entry and at `position` or beyond (Redis refuses lower
-- IDs), so that a blocked reader wakes: one blocked on a key that is deleted does not.
-- The stream stays for `linger` ms, for its reader.  Where Redis is out of memory it is deleted instead.
local function mark(stream, outcome, position, linger)
  local offset, sequence = string.match(last_id(stream), '^(%d+)-(%d+)$')
  if tonumber(position) > tonumber(offset) then offset, sequence = position, 0 end
  local added = redis.pcall('XADD', stream, offset .. '-' .. (sequence + 1), 'end', outcome)
  if type(added) == 'table' and added.err then
    redis.call('DEL', stream)
  else
    redis.call('PEXPIRE', stream, linger)
  end
end
