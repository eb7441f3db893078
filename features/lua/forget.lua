#!lua flags=allow-oom
-- KEYS: a user's record, exclusion mark and exposures. Answers with whether there was a record.

redis.call('SET', KEYS[2], '')
redis.call('DEL', KEYS[3])
return redis.call('DEL', KEYS[1])
