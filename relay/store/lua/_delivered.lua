-- Shared by the verbs that end a leg; put before them, and after _last, when they are loaded.
-- Returns the byte offset up to which the downloader has everything: the largest of those that the callers know and
-- that its last acknowledgement says.
local function delivered_of(acks, ...)
  local last = redis.call('XREVRANGE', acks, '+', '-', 'COUNT', 1)[1]
  local most = last and string.match(last[1], '^%d+') or '0'
  for _, known in ipairs({...}) do
    if tonumber(known) > tonumber(most) then most = known end
  end
  return most
end
