#!lua flags=allow-oom
-- KEYS: a document, which is its revision, int64, and the value. ARGV: the revision that it must be at, int64; what
-- to put in its place. Answers with whether it was replaced.

local now = redis.call('GET', KEYS[1])
if string.sub(now or string.rep('\0', 8), 1, 8) ~= ARGV[1] then
  return 0
end
redis.call('SET', KEYS[1], ARGV[2])
return 1
