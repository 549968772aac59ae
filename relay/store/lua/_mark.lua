-- Shared by the verbs that end a stream; put before them when they are loaded.
-- Appends the end marker to a stream, with the bytes `delivered`, so that a blocked reader wakes: a reader that is
-- blocked on a key does not wake when the key is deleted. If only a leg ends, `leg` is the number of the next one.
-- The marker's ID follows the stream's last entry, and is at offset `beyond` at least. Redis refuses lower IDs, so an
-- entry that arrives late cannot take the marker's place in a stream of one entry.
-- The stream stays for `linger` ms, for its reader. If Redis is out of memory, the stream is deleted instead.
local function mark(stream, outcome, delivered, beyond, linger, leg)
  local offset, sequence = string.match(last_id(stream), '^(%d+)-(%d+)$')
  if tonumber(beyond) > tonumber(offset) then offset, sequence = beyond, 0 end
  local marker = {'end', outcome, 'to', delivered}
  if leg then marker[5], marker[6] = 'leg', leg end
  local added = redis.pcall('XADD', stream, offset .. '-' .. (sequence + 1), unpack(marker))
  if type(added) == 'table' and added.err then
    redis.call('DEL', stream)
  else
    redis.call('PEXPIRE', stream, linger)
  end
end
