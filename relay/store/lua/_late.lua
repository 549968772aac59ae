-- Shared by the verbs that must do nothing once their caller has given up; put first, after _now, when they are loaded.
-- The last argument is the time in Redis's Unix milliseconds at which the caller gives up.
-- Returns: late, NOW in ms
if now_ms() > tonumber(ARGV[#ARGV]) then return {'late', now_ms()} end
