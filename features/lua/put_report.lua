#!lua flags=allow-oom
-- KEYS: the reports. ARGV: the source, what it reports.

return redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
