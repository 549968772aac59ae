-- Shared by the verbs that make a token or count its names; put before them when they are loaded.
-- Returns the fields of a new token's hash, each followed by its value. All other fields are about names.
local function facts(now, digest)
  return {'digest', digest, 'created', now, 'uses', 0, 'bytes', 0, 'reserved', 0}
end
