-- Shared by the verbs that add a name to a token's hash; put before them, and after _facts, when they are loaded.
-- Returns whether fewer than `most` names are at work, given the number of fields in the token's hash; 0 means no limit.
local function room(count, most)
  return most == 0 or count - #facts('', '', '', '', '', '', '') / 2 < most
end
