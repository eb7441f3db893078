-- Replaces attributes as features.record.with_attributes does.
-- KEYS: the record of each user, then the exclusion mark of each. ARGV: now, Unix nanoseconds, int64; whether to write
-- records again that are so already (see record.lua); then the attributes of each user, JSON.

local users = #KEYS / 2
for user = 1, users do
  if redis.call('EXISTS', KEYS[users + user]) == 0 then
    local value = redis.call('GET', KEYS[user])
    local r = decoded(value)
    if not r then
      return foreign()
    end
    if r.attributes ~= ARGV[2 + user] then
      r.attributes = ARGV[2 + user]
      revise(r, ARGV[1])
      redis.call('SET', KEYS[user], encoded(r))
    elseif ARGV[2] == '1' then
      redis.call('SET', KEYS[user], value)
    end
  end
end
return users
