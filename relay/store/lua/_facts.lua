-- Shared by the verbs that make a token or count its names; put before them when they are loaded.
-- Returns the fields of a new token's hash, each followed by its value. All other fields are about names.
local function facts(now, digest, owner, names, bytes, upload, ends)
  return {'digest', digest, 'created', now, 'uses', 0, 'bytes', 0, 'reserved', 0, 'owner', owner, 'max_names', names,
    'max_bytes', bytes, 'max_upload', upload, 'ends', ends}
end
