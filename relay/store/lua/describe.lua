-- Records the SHA-256 of the whole file of an upload, for its downloader, which compares it.
-- Returns: 1, or 0 if there is no such upload any more
-- `upload` is the digest of the address that its uploader knows.
local transfer = KEYS[1]
local id, upload, sha256 = ARGV[1], ARGV[2], ARGV[3]

local stored = redis.call('HMGET', transfer, 'id', 'upload')
if stored[1] ~= id or stored[2] ~= upload then return 0 end
redis.call('HSET', transfer, 'sha256', sha256)
return 1
