-- Shared by the verbs that a limit of the cluster and one of a token concern; put before them when they are loaded.
-- Returns the smaller of two limits; 0 means no limit.
local function smaller(one, other)
  if one == 0 or other == 0 then return math.max(one, other) end
  return math.min(one, other)
end
