#!lua
-- KEYS: a user's record and exposures. ARGV: the experiment, the exposure. The first one of an experiment stays.

if redis.call('EXISTS', KEYS[1]) == 0 then
  return 0
end
return redis.call('HSETNX', KEYS[2], ARGV[1], ARGV[2])
